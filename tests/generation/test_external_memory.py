"""Decoding with an external memory equals the teacher-forced forward pass with the segment length of training."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.config import ModelConfig
from block_recurrent.data.vocabulary import ByteVocabulary
from block_recurrent.errors import InputError
from block_recurrent.generation import decode_state
from block_recurrent.generation.decode_state import DecodeState
from block_recurrent.generation.decode_step import decode_step
from block_recurrent.generation.generator import Generator
from block_recurrent.generation.prefill import prefill
from block_recurrent.generation.sampling import GREEDY
from block_recurrent.generation.scoring import TextToScore, score_rows
from block_recurrent.model.language_model import init_params, init_state
from block_recurrent.model.loss import cross_entropy
from tests.support.architectures import CACHED, WINDOW, perturbed_params, random_tokens
from tests.support.decoding import run

SEGMENT = 2 * WINDOW
TOTAL = 4 * SEGMENT + 3
_MEMORY: Any = {"memory_layers": (-2,), "memory_size": 2 * SEGMENT, "memory_neighbors": 4}


def with_memory(name: str, **changes: Any) -> ModelConfig:
    return dataclasses.replace(CACHED[name], **_MEMORY | changes)


SLIDE = with_memory("slide")
# Model and segment length. The memory is full after two segments of 16 tokens, so all of them overwrite it.
MODELS = {
    "one_window": (SLIDE, WINDOW),
    "two_windows": (SLIDE, SEGMENT),
    "two_layers": (with_memory("slide", memory_layers=(0, 2), memory_retrieval="exact"), SEGMENT),
    "same_layer_as_states": (with_memory("lstm_dual", memory_layers=(1,)), SEGMENT),
    "feedback": (with_memory("feedback_fixed_skip", memory_layers=(0,)), SEGMENT),
    "approximate": (with_memory("slide", memory_retrieval="approximate"), SEGMENT),
    "no_window": (with_memory("slide", window_length=None), SEGMENT),
}


def cases(*quick: str) -> list[Any]:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in MODELS]


# Prompt lengths of the rows of one batch: none, within a block, at ends of blocks and of segments.
LENGTHS = np.array((0, 3, WINDOW, SEGMENT - 1, SEGMENT, SEGMENT + WINDOW, SEGMENT + WINDOW + 3))

STARTS = (1, WINDOW + 3, SEGMENT, SEGMENT + WINDOW)

jit_decode_step = jax.jit(decode_step, static_argnums=0)
jit_prefill = jax.jit(prefill, static_argnums=0)


def assert_close(x: Any, y: Any) -> None:
    np.testing.assert_allclose(x, y, rtol=0, atol=2e-5)


def prepare(name: str) -> tuple[ModelConfig, Any, int]:
    config, segment = MODELS[name]
    params = perturbed_params(config)
    return config, params, segment


def teacher_forced(config: ModelConfig, params: Any, tokens: np.ndarray, segment: int) -> tuple[np.ndarray, list[Any]]:
    """Returns the logits (B, T, V) of the parallel forward pass segment by segment, and the state after each."""
    state, logits, states = init_state(config, params, len(tokens)), [], []
    padded = np.pad(tokens, ((0, 0), (0, -tokens.shape[1] % segment)))
    for start in range(0, padded.shape[1], segment):
        output = run(config, params, padded[:, start : start + segment], state)
        state = output.state
        logits.append(np.asarray(output.logits))
        states.append(state)
    return np.concatenate(logits, axis=1)[:, : tokens.shape[1]], states


def prefill_rows(config: ModelConfig, params: Any, tokens: np.ndarray, lengths: Any, segment: int) -> DecodeState:
    """Processes the first `lengths` tokens of each row, in calls of `segment` tokens."""
    state = decode_state.init(config, params, len(tokens), segment_length=segment)
    for start in range(0, max(lengths), segment):
        piece = np.zeros((len(tokens), segment), np.int32)
        part = tokens[:, start : start + segment]
        piece[:, : part.shape[1]] = part
        state = jit_prefill(config, params, state, piece, np.clip(lengths - start, 0, segment).astype(np.int32))
    return state


@pytest.mark.parametrize("name", cases("two_windows"))
def test_every_row_has_the_logits_of_the_forward_pass_over_three_segment_ends(name):
    config, params, segment = prepare(name)
    tokens = np.asarray(random_tokens(config, len(LENGTHS), TOTAL))
    expected, _ = teacher_forced(config, params, tokens, segment)
    rows, state = np.arange(len(LENGTHS)), prefill_rows(config, params, tokens, LENGTHS, segment)
    for step in range(TOTAL - max(LENGTHS)):
        position = LENGTHS + step
        if step:
            state = jit_decode_step(config, params, state, tokens[rows, position - 1])
        wanted = np.where((position > 0)[:, None], expected[rows, position - 1], 0)
        np.testing.assert_allclose(state.logits, wanted, rtol=0, atol=2e-5)
    assert min(LENGTHS + TOTAL - max(LENGTHS)) > 2 * segment  # the row without a prompt has passed two ends itself


@pytest.mark.parametrize("name", cases("feedback"))
def test_the_memory_changes_at_segment_ends_only_and_equals_that_of_the_forward_pass(name):
    config, params, segment = prepare(name)
    unit = WINDOW if config.feedback else segment
    tokens = np.asarray(random_tokens(config, 1, 2 * segment))
    _, states = teacher_forced(config, params, tokens, unit)
    state = decode_state.init(config, params, 1, segment_length=segment)
    empty = decode_state.init(config, params, 1, segment_length=segment).model_state
    for position in range(1, tokens.shape[1] + 1):
        state = jit_decode_step(config, params, state, tokens[:, position - 1])
        expected = states[position // unit - 1] if position >= unit else empty
        for ours, theirs in zip(state.model_state.layers, expected.layers, strict=True):
            if ours.memory_index is not None:
                jax.tree.map(assert_close, ours.memory, theirs.memory)
        if position % unit == 0:
            jax.tree.map(assert_close, state.model_state, expected)


def test_the_segment_length_matters():
    """Without this, the tests above could not fail for a wrong one."""
    params = perturbed_params(SLIDE)
    tokens = np.asarray(random_tokens(SLIDE, 1, 2 * SEGMENT))
    one, two = (teacher_forced(SLIDE, params, tokens, length)[0] for length in (WINDOW, SEGMENT))
    np.testing.assert_allclose(one[:, :WINDOW], two[:, :WINDOW], rtol=0, atol=2e-5)
    assert np.abs(one[:, WINDOW:SEGMENT] - two[:, WINDOW:SEGMENT]).max() > 0.01


def make_generator(name: str = "two_windows", **arguments: Any) -> Generator:
    config, segment = MODELS[name]
    config = dataclasses.replace(config, vocab_size=260)
    arguments = {"segment_length": segment, "batch_size": 4} | arguments
    return Generator(config, init_params(config, jax.random.key(0)), ByteVocabulary(), **arguments)


PROMPTS = ["The quick brown fox", "a", "jumps over the lazy dog; the quick brown fox", "twelve lines"]


@pytest.mark.parametrize("name", cases("two_windows"))
def test_greedy_text_has_the_most_probable_tokens_of_the_forward_pass(name):
    """The prompts end in the middle of a segment, and the continuations pass at least three segment ends."""
    generator = make_generator(name)
    config, params, segment = generator.config, generator.params, generator.segment_length
    for continuation in generator.generate(PROMPTS, num_tokens=3 * SEGMENT + 5, sampling=GREEDY):
        prompt = generator.encode(PROMPTS[continuation.prompt])
        ids = np.concatenate([prompt, continuation.tokens])[None]
        logits = teacher_forced(config, params, ids, segment)[0][0, :, : generator.vocabulary.size]
        expected = np.argmax(logits, axis=-1)[len(prompt) - 1 : -1]
        np.testing.assert_array_equal(continuation.tokens, expected)


def test_a_saved_state_within_a_segment_continues_exactly(tmp_path):
    generator = make_generator()
    whole, *_ = generator.generate([PROMPTS[0]], num_tokens=50, sampling=GREEDY)
    for first in (3, WINDOW, SEGMENT + 2):  # tokens before the state is saved
        stream = generator.stream(PROMPTS[0], num_tokens=first, sampling=GREEDY)
        list(stream)
        generator.save_state(tmp_path / f"{first}", stream.state)
        state = generator.load_state(tmp_path / f"{first}")
        jax.tree.map(np.testing.assert_array_equal, state, stream.state)
        rest, *_ = generator.generate([""], num_tokens=50 - first, sampling=GREEDY, state=state)
        assert (*stream.finish().tokens, *rest.tokens) == whole.tokens


def test_a_state_with_segments_of_another_length_is_refused(tmp_path):
    generator = make_generator()
    generator.save_state(tmp_path / "state", generator.prefill(["some text"]))
    message = f"segments of {SEGMENT} tokens, but the segment length is {WINDOW} here.*pass --segment-length {SEGMENT}"
    with pytest.raises(InputError, match=message):
        make_generator("one_window").load_state(tmp_path / "state")


@pytest.mark.parametrize("name", cases("two_windows"))
@pytest.mark.parametrize("start", [SEGMENT + WINDOW + 1, *(pytest.param(n, marks=pytest.mark.slow) for n in STARTS)])
def test_scores_equal_the_forward_pass_with_and_without_a_context(name, start):
    config, params, segment = prepare(name)
    tokens = np.asarray(random_tokens(config, 1, TOTAL))
    logits, _ = teacher_forced(config, params, tokens, segment)
    losses = np.asarray(cross_entropy(jnp.asarray(logits[:, :-1]), jnp.asarray(tokens[:, 1:])))[0]
    sizes: Any = {"batch_size": 2, "segment_length": segment}
    (whole,) = score_rows(config, params, [TextToScore(tokens[0], 1)], None, **sizes)
    np.testing.assert_allclose(whole.nats, losses, rtol=0, atol=2e-5)
    context = prefill_rows(config, params, tokens, np.array([start]), segment)
    texts = [TextToScore(tokens[0, start:end], 1) for end in (start + 1, TOTAL)]
    for score, end in zip(score_rows(config, params, texts, context, **sizes), (start + 1, TOTAL), strict=True):
        np.testing.assert_allclose(score.nats, losses[start - 1 : end - 1], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (None, "segment_length = None: a model with an external memory needs the segment length of its training"),
        (3 * WINDOW, f"segment_length = {3 * WINDOW}: must divide ModelConfig.memory_size = {2 * SEGMENT}"),
        (WINDOW // 2, f"segment_length = {WINDOW // 2}: must be a multiple of the window, {WINDOW}"),
    ],
)
def test_a_missing_or_unsuitable_segment_length_is_refused(segment, message):
    params = init_params(SLIDE, jax.random.key(0))
    with pytest.raises(InputError, match=message):
        decode_state.from_model_state(
            SLIDE,
            params,
            init_state(SLIDE, params, 1),
            tokens=jnp.zeros((1, WINDOW), jnp.int32),
            position=jnp.zeros(1, jnp.uint32),
            logits=jnp.zeros((1, SLIDE.vocab_size)),
            segment_length=segment,
        )


@pytest.mark.slow
def test_a_model_without_a_window_takes_more_than_a_segment():
    """Without an external memory it takes at most one."""
    generator = make_generator("no_window")
    (continuation,) = generator.generate(["x" * (SEGMENT + 1)], num_tokens=1)
    assert len(continuation.tokens) == 1
    config = dataclasses.replace(generator.config, memory_layers=())
    params = init_params(config, jax.random.key(0))
    bounded = Generator(config, params, ByteVocabulary(), segment_length=SEGMENT)
    with pytest.raises(InputError, match="a model without a window takes at most its segment length"):
        bounded.generate(["x" * (SEGMENT + 1)], num_tokens=1)
