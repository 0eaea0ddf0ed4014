"""Text in, text out, on a tiny model of bytes: the same text in one go, in parts, in batches and from a file."""

import dataclasses
import math
import os
import subprocess

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


def make_generator(config: ModelConfig, **arguments: int) -> Generator:
    config = dataclasses.replace(config, vocab_size=260)
    params = init_params(config, jax.random.key(0))
    return Generator(config, params, ByteVocabulary(), segment_length=16, **arguments)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return make_generator(CACHED["fixed_skip"], batch_size=3)


@pytest.fixture(scope="module")
def vanilla() -> Generator:
    return make_generator(dataclasses.replace(CACHED["slide"], window_length=None))


def test_greedy_text_is_the_forward_passes_maximum(generator):
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
    costs = cross_entropy(logits[None, start : start + 43], jnp.array([whole.tokens]))[0]
    np.testing.assert_allclose(whole.nats, costs, rtol=0, atol=1e-4)
    assert whole.log_probability == -sum(whole.nats)


def test_samples_do_not_depend_on_the_rows_beside_them(generator):
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


def test_a_saved_state_goes_on_as_in_one_go(generator, tmp_path):
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


def test_one_state_serves_many_prompts(generator):
    state = generator.read([TEXT])
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


def test_scores_are_the_forward_passes(generator):
    texts = [TEXT, "ab", TEXT * 3]
    config, params = generator.config, generator.params
    for text, score in zip(texts, generator.score(texts), strict=True):
        ids = generator.encode(text)
        padded = np.pad(ids[:-1], (0, -(len(ids) - 1) % 8))[None]
        logits = apply(config, params, jnp.asarray(padded), init_state(config, params, 1)).logits[:, : len(ids) - 1]
        np.testing.assert_allclose(score.nats, cross_entropy(logits, jnp.asarray(ids[None, 1:]))[0], rtol=0, atol=1e-4)
        assert score.bytes == len(score.tokens) == len(text) - 1
        assert score.bits_per_byte == pytest.approx(-score.log_probability / math.log(2) / (len(text) - 1))
    for length in (16, 19):  # at a block's end and inside
        behind = next(generator.score([TEXT[length:]], state=generator.read([TEXT[:length]])))
        whole = next(generator.score([TEXT]))
        np.testing.assert_allclose(behind.nats, whole.nats[length - 1 :], rtol=0, atol=1e-4)
    with pytest.raises(InputError, match=r"text 1: 1 token\(s\), nothing to score"):
        generator.score(["ab", "a"])


def test_without_a_window_there_is_room_for_one_segment(vanilla):
    whole = next(vanilla.generate([TEXT[:8]], num_tokens=8, sampling=GREEDY))
    in_parts = vanilla.generate([TEXT[5:8]], num_tokens=8, sampling=GREEDY, state=vanilla.read([TEXT[:5]]))
    assert next(in_parts).tokens == whole.tokens
    with pytest.raises(InputError, match=r"a prompt of 5 and 12 new tokens: .* at most its segment length, 16"):
        vanilla.stream(TEXT[:5], num_tokens=12)
    with pytest.raises(InputError, match="10 tokens read before, a prompt of 5 and 2 new tokens"):
        vanilla.stream(TEXT[:5], num_tokens=2, state=vanilla.read([TEXT[:10]]))


def test_an_empty_prompt_needs_something_before_it(generator):
    with pytest.raises(InputError, match="prompt: empty"):
        generator.stream("", num_tokens=1)
    with pytest.raises(InputError, match="prompt 1: empty"):
        generator.generate(["a", ""], num_tokens=1)
    with pytest.raises(InputError, match="prompt: empty"):
        generator.stream("", num_tokens=1, state=generator.start())


def test_a_state_of_another_model_is_refused_by_name(generator, tmp_path):
    path = tmp_path / "state"
    generator.save_state(path, generator.read([TEXT]))
    with pytest.raises(InputError, match=r"ModelConfig.cell: skip there, dual here"):
        make_generator(CACHED["fixed_dual"]).load_state(path)
    trained = make_generator(CACHED["fixed_skip"])
    trained.params = jax.tree.map(lambda leaf: leaf * 1.0001, trained.params)
    with pytest.raises(InputError, match=r"another model \(parameters:"):
        trained.load_state(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as a decoding state"):
        generator.load_state(path)
    with pytest.raises(InputError, match="cannot be read"):
        generator.load_state(tmp_path / "missing")
    with pytest.raises(InputError, match="does not exist"):
        generator.check_room_for_state(tmp_path / "missing" / "state")


@pytest.fixture(scope="module")
def writes_pieces(tmp_path_factory) -> Generator:
    """A model of SentencePiece's ids; the pieces lack most characters."""
    vocabulary = load_vocabulary(train_pieces(tmp_path_factory.mktemp("pieces") / "tiny"))
    config = dataclasses.replace(CACHED["slide"], vocab_size=vocabulary.table_size)
    return Generator(config, init_params(config, jax.random.key(0)), vocabulary, segment_length=16)


def test_characters_that_the_vocabulary_lacks_are_read_as_unknown_and_counted(writes_pieces, generator):
    assert writes_pieces.unknown_tokens("the river") == 0
    assert writes_pieces.unknown_tokens("the ☃ river ☃☃") == 2  # neighbours are one unknown piece
    assert generator.unknown_tokens("☃") == 0  # bytes lack nothing
    unknown = writes_pieces.read(["the ☃ river"]).logits
    np.testing.assert_array_equal(unknown, writes_pieces.read(["the ☂ river"]).logits)
    assert not np.allclose(unknown, writes_pieces.read(["the night river"]).logits)


def test_pieces_stream_as_the_text_of_all_of_them(writes_pieces):
    stream = writes_pieces.stream("the river", num_tokens=50, sampling=FLAT)
    text = "".join(stream)
    vocabulary, prompt = writes_pieces.vocabulary, writes_pieces.encode("the river").tolist()
    whole = stream.finish()
    assert vocabulary.decode(prompt) + text == vocabulary.decode([*prompt, *whole.tokens])
    assert whole.text == text


def test_a_state_of_another_vocabulary_is_refused(writes_pieces, tmp_path):
    path = tmp_path / "state"
    writes_pieces.save_state(path, writes_pieces.read(["the river"]))
    other = load_vocabulary(train_pieces(tmp_path / "other", vocab_size=55))
    here = Generator(writes_pieces.config, writes_pieces.params, other, segment_length=16)
    with pytest.raises(InputError, match=f"another model \\(vocabulary: .* there, {other.fingerprint} here\\)"):
        here.load_state(path)


def test_a_full_disk_is_one_error_and_loses_nothing(generator, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        path = tmp_path / "state"
        path.write_bytes(b"older")
        with pytest.raises(InputError, match=r"the state takes .* bytes; .* are free there"):
            generator.check_room_for_state(path)
        state = jax.tree.map(lambda leaf: jnp.repeat(leaf, 99, axis=0), generator.start())
        with pytest.raises(InputError, match="disk is full; nothing was changed"):
            generator.save_state(path, state)
        assert os.listdir(tmp_path) == ["state"]
        assert path.read_bytes() == b"older"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_bytes_stream_as_whole_characters_and_make_up_the_whole():
    vocabulary, text = ByteVocabulary(), "aé漢😀\xff z"
    ids = [*vocabulary.encode(text).tolist(), 3 + 0xF0, 3 + 0x9F, 3 + 0x41, 1, 3 + 0xC3]
    stream = vocabulary.detokenizer([])
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) + stream.flush() == vocabulary.decode(ids)
    assert {"é", "漢", "😀"} <= set(pieces)
    behind = vocabulary.detokenizer(vocabulary.encode("é").tolist()[:1])
    assert behind.push(int(vocabulary.encode("é")[1])) == "é"
