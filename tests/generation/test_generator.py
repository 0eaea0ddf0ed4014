"""Text in, text out, with a tiny model of bytes: the same text at once, in parts, in batches and from a state file."""

import dataclasses
import math
import tarfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.config import ModelConfig
from block_recurrent.data.vocabulary import ByteVocabulary, load_vocabulary
from block_recurrent.errors import InputError
from block_recurrent.generation.generator import Generator
from block_recurrent.generation.sampling import GREEDY, Sampling
from block_recurrent.model.language_model import apply, init_params, init_state
from block_recurrent.model.loss import cross_entropy
from tests.support.architectures import CACHED
from tests.support.vocabularies import train_pieces

FLAT = Sampling(temperature=1.5)
TEXT = "The quick brown fox jumps over the lazy dog; "


def make_generator(config: ModelConfig, **arguments: Any) -> Generator:
    config = dataclasses.replace(config, vocab_size=260)
    params = init_params(config, jax.random.key(0))
    return Generator(config, params, ByteVocabulary(), segment_length=16, **arguments)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return make_generator(CACHED["fixed_skip"], batch_size=3)


@pytest.fixture(scope="module")
def vanilla() -> Generator:
    return make_generator(dataclasses.replace(CACHED["slide"], window_length=None))


def test_greedy_text_has_the_most_probable_tokens_of_the_forward_pass(generator):
    stream = generator.stream(TEXT, num_tokens=43, sampling=GREEDY)
    text = "".join(stream)
    whole = stream.finish()
    assert whole.text == text
    ids = np.concatenate([generator.encode(TEXT), whole.tokens])[None]
    ids = np.pad(ids, ((0, 0), (0, -ids.shape[1] % 8)))
    config, params = generator.config, generator.params
    logits = apply(config, params, jnp.asarray(ids), init_state(config, params, 1)).logits[0]
    start = len(TEXT) - 1
    expected = jnp.argmax(logits[:, : generator.vocabulary.size], axis=-1)[start : start + 43]
    np.testing.assert_array_equal(whole.tokens, expected)
    losses = cross_entropy(logits[None, start : start + 43], jnp.array([whole.tokens]))[0]
    np.testing.assert_allclose(whole.nats, losses, rtol=0, atol=1e-4)
    assert whole.log_probability == -sum(whole.nats)


def test_samples_do_not_depend_on_the_other_rows(generator):
    prompts = [TEXT * 2, "x", TEXT[:8], TEXT[:17]]
    many = list(generator.generate(prompts, num_tokens=40, sampling=FLAT, seed=3, num_samples=2))
    assert [(c.prompt, c.sample) for c in many] == [(p, s) for p in range(4) for s in range(2)]
    assert len({c.text for c in many}) == 8
    for number, prompt in enumerate(prompts[:2]):
        alone = list(generator.generate([prompt], num_tokens=40, sampling=FLAT, seed=3, num_samples=2))
        assert [c.tokens for c in alone] == [c.tokens for c in many if c.prompt == number]
    other = next(generator.generate([TEXT * 2], num_tokens=40, sampling=FLAT, seed=4))
    assert other.tokens != many[0].tokens
    assert all(0 <= token < generator.vocabulary.size for c in many for token in c.tokens)


def test_a_saved_state_continues_as_if_never_saved(generator, tmp_path):
    whole = generator.stream(TEXT, num_tokens=60, sampling=FLAT, seed=1)
    for _ in whole:
        pass
    first = generator.stream(TEXT, num_tokens=23, sampling=FLAT, seed=1)
    for _ in first:
        pass
    generator.save_state(tmp_path / "state", first.state)
    fresh = make_generator(CACHED["fixed_skip"])
    second = fresh.stream("", num_tokens=37, sampling=FLAT, seed=1, state=fresh.load_state(tmp_path / "state"))
    for _ in second:
        pass
    assert first.finish().tokens + second.finish().tokens == whole.finish().tokens
    jax.tree.map(np.testing.assert_array_equal, second.state, whole.state)


def test_a_generator_is_created_from_a_workdir(tmp_path, monkeypatch):
    artefacts = Path(__file__).parents[1] / "artefacts" / "0.1.0" / "artefacts.tar.xz"
    with tarfile.open(artefacts) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    by_name, by_path = Generator.from_workdir("recurrent", batch_size=2), Generator.from_workdir(tmp_path / "recurrent")
    assert (by_name.batch_size, by_path.batch_size) == (2, 8)
    assert by_name.identity == by_path.identity
    assert next(by_name.generate(["3 times"], num_tokens=3)).finish_reason == "length"
    with pytest.raises(InputError, match="nowhere"):
        Generator.from_workdir("nowhere")


def test_the_name_of_prefill_in_0_1_0_is_kept(generator):
    jax.tree.map(np.testing.assert_array_equal, generator.read([TEXT]), generator.prefill([TEXT]))


def test_many_prompts_share_one_state(generator):
    state = generator.prefill([TEXT])
    together = list(generator.generate(["a", "bc", ""], num_tokens=20, sampling=GREEDY, state=state))
    expected = [next(generator.generate([TEXT + end], num_tokens=20, sampling=GREEDY)) for end in ("a", "bc", "")]
    assert [c.tokens for c in together] == [c.tokens for c in expected]


def test_a_stop_string_ends_text_and_state(generator):
    free = next(generator.generate([TEXT], num_tokens=64, sampling=FLAT, seed=1))
    stop = free.text[40:42]
    end = free.text.index(stop)
    stream = generator.stream(TEXT, num_tokens=64, sampling=FLAT, seed=1, stop=("never appears", stop))
    assert "".join(stream) == free.text[:end]
    stopped = stream.finish()
    assert stopped.finish_reason == "stop"
    assert stopped.tokens == free.tokens[: len(stopped.tokens)]
    assert int(stream.state.position[0]) == len(TEXT) + len(stopped.tokens)
    with pytest.raises(InputError, match="stop string: empty"):
        generator.stream(TEXT, num_tokens=1, stop=("",))


@pytest.mark.slow
def test_scores_equal_the_forward_pass(generator):
    texts = [TEXT, "ab", TEXT * 3]
    config, params = generator.config, generator.params
    for text, score in zip(texts, generator.score(texts), strict=True):
        ids = generator.encode(text)
        padded = np.pad(ids[:-1], (0, -(len(ids) - 1) % 8))[None]
        logits = apply(config, params, jnp.asarray(padded), init_state(config, params, 1)).logits[:, : len(ids) - 1]
        np.testing.assert_allclose(score.nats, cross_entropy(logits, jnp.asarray(ids[None, 1:]))[0], rtol=0, atol=1e-4)
        assert score.bytes == len(score.tokens) == len(text) - 1
        assert score.bits_per_byte == pytest.approx(-score.log_probability / math.log(2) / (len(text) - 1))
    for length in (16, 19):  # at a block's end and inside a block
        after = next(generator.score([TEXT[length:]], state=generator.prefill([TEXT[:length]])))
        whole = next(generator.score([TEXT]))
        np.testing.assert_allclose(after.nats, whole.nats[length - 1 :], rtol=0, atol=1e-4)
    with pytest.raises(InputError, match=r"text 1: 1 token\(s\), nothing to score"):
        generator.score(["ab", "a"])


def test_without_a_window_prompt_and_continuation_fill_at_most_one_segment(vanilla):
    whole = next(vanilla.generate([TEXT[:8]], num_tokens=8, sampling=GREEDY))
    in_parts = vanilla.generate([TEXT[5:8]], num_tokens=8, sampling=GREEDY, state=vanilla.prefill([TEXT[:5]]))
    assert next(in_parts).tokens == whole.tokens
    with pytest.raises(InputError, match=r"a prompt of 5 and 12 new tokens: .* at most its segment length, 16"):
        vanilla.stream(TEXT[:5], num_tokens=12)
    with pytest.raises(InputError, match="10 earlier tokens, a prompt of 5 and 2 new tokens"):
        vanilla.stream(TEXT[:5], num_tokens=2, state=vanilla.prefill([TEXT[:10]]))


def test_an_empty_prompt_needs_a_state_with_tokens(generator):
    with pytest.raises(InputError, match="prompt: empty"):
        generator.stream("", num_tokens=1)
    with pytest.raises(InputError, match="prompt 1: empty"):
        generator.generate(["a", ""], num_tokens=1)
    with pytest.raises(InputError, match="prompt: empty"):
        generator.stream("", num_tokens=1, state=generator.start())


@pytest.fixture(scope="module")
def piece_generator(tmp_path_factory) -> Generator:
    """A generator with a SentencePiece vocabulary that lacks most characters."""
    vocabulary = load_vocabulary(train_pieces(tmp_path_factory.mktemp("pieces") / "tiny"))
    config = dataclasses.replace(CACHED["slide"], vocab_size=vocabulary.table_size)
    return Generator(config, init_params(config, jax.random.key(0)), vocabulary, segment_length=16)


def test_characters_outside_the_vocabulary_become_unknown_and_are_counted(piece_generator, generator):
    assert piece_generator.unknown_tokens("the river") == 0
    assert piece_generator.unknown_tokens("the ☃ river ☃☃") == 2  # adjacent ones are one unknown piece
    assert generator.unknown_tokens("☃") == 0  # bytes cover every character
    unknown = piece_generator.prefill(["the ☃ river"]).logits
    np.testing.assert_array_equal(unknown, piece_generator.prefill(["the ☂ river"]).logits)
    assert not np.allclose(unknown, piece_generator.prefill(["the night river"]).logits)


def test_streamed_pieces_add_up_to_the_text_of_all_tokens(piece_generator):
    stream = piece_generator.stream("the river", num_tokens=50, sampling=FLAT)
    text = "".join(stream)
    vocabulary, prompt = piece_generator.vocabulary, piece_generator.encode("the river").tolist()
    whole = stream.finish()
    assert vocabulary.decode(prompt) + text == vocabulary.decode([*prompt, *whole.tokens])
    assert whole.text == text


def test_a_state_of_another_vocabulary_is_refused(piece_generator, tmp_path):
    path = tmp_path / "state"
    piece_generator.save_state(path, piece_generator.prefill(["the river"]))
    other = load_vocabulary(train_pieces(tmp_path / "other", vocab_size=55))
    here = Generator(piece_generator.config, piece_generator.params, other, segment_length=16)
    with pytest.raises(InputError, match=f"another model \\(vocabulary: .* in the file, {other.fingerprint} here\\)"):
        here.load_state(path)


def test_streamed_bytes_are_whole_characters_and_add_up_to_the_text():
    vocabulary, text = ByteVocabulary(), "aé漢😀\xff z"
    ids = [*vocabulary.encode(text).tolist(), 3 + 0xF0, 3 + 0x9F, 3 + 0x41, 1, 3 + 0xC3]
    stream = vocabulary.detokenizer([])
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) + stream.flush() == vocabulary.decode(ids)
    assert {"é", "漢", "😀"} <= set(pieces)
    after = vocabulary.detokenizer(vocabulary.encode("é").tolist()[:1])
    assert after.push(int(vocabulary.encode("é")[1])) == "é"
