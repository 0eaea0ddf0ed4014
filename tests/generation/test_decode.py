"""Decoding against the teacher-forced forward pass: every architecture, every position, rows at different places."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.config import ModelConfig
from block_recurrent.generation import decode
from block_recurrent.generation.decode import DecodeState
from block_recurrent.model.language_model import apply, init_params, init_state
from tests.support.architectures import ALL, CACHED, WINDOW, perturbed_params, random_tokens

SEGMENT = 2 * WINDOW
# Prompt lengths of the rows of one batch: nothing, one token, around a block's end, around a segment's, several.
LENGTHS = (0, 1, WINDOW - 1, WINDOW, WINDOW + 1, SEGMENT, SEGMENT + 3, 2 * SEGMENT)
TOTAL = 3 * SEGMENT + 3

run = jax.jit(apply, static_argnums=0)
read = jax.jit(decode.read, static_argnums=0)
decode_step = jax.jit(decode.decode_step, static_argnums=0)


def chunk_length(config: ModelConfig) -> int:
    return SEGMENT if config.window_length else TOTAL


def read_prompts(config: ModelConfig, params: Any, tokens: np.ndarray, lengths: Any) -> DecodeState:
    """Reads the first `lengths` tokens of each row, in calls of one shape."""
    lengths, chunk = np.asarray(lengths), chunk_length(config)
    state = decode.init(config, params, len(tokens), segment_length=chunk)
    for start in range(0, max(lengths.max(), 1), chunk):
        piece = np.zeros((len(tokens), chunk), np.int32)
        part = tokens[:, start : start + chunk]
        piece[:, : part.shape[1]] = part
        state = read(config, params, state, piece, np.clip(lengths - start, 0, chunk).astype(np.int32))
    return state


def teacher_forced(config: ModelConfig, params: Any, tokens: np.ndarray) -> np.ndarray:
    """(B, T, V)."""
    window = config.window_length or 1
    padded = np.pad(tokens, ((0, 0), (0, -tokens.shape[1] % window)))
    return np.asarray(run(config, params, padded, init_state(config, params, len(tokens))).logits)[:, : tokens.shape[1]]


QUICK = ("lstm_dual", "two_recurrent", "feedback_fixed_skip", "slide", "vanilla")
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL]


@pytest.mark.parametrize("name", CASES)
def test_every_row_predicts_what_the_forward_pass_predicts_at_every_position(name):
    config, params = ALL[name], perturbed_params(ALL[name])
    tokens = np.asarray(random_tokens(config, len(LENGTHS), TOTAL))
    expected = teacher_forced(config, params, tokens)
    rows, lengths = np.arange(len(LENGTHS)), np.array(LENGTHS)
    state = read_prompts(config, params, tokens, lengths)
    for step in range(TOTAL - max(LENGTHS)):
        position = lengths + step
        if step:
            state = decode_step(config, params, state, tokens[rows, position - 1])
        np.testing.assert_array_equal(state.position, position)
        begun = position > 0
        wanted = np.where(begun[:, None], expected[rows, position - 1], 0)
        np.testing.assert_allclose(state.logits, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["lstm_dual", pytest.param("feedback_two_recurrent", marks=pytest.mark.slow)])
def test_a_row_is_what_it_is_alone_and_the_memory_is_the_forward_passes(name):
    config, params = CACHED[name], perturbed_params(CACHED[name])
    tokens = np.asarray(random_tokens(config, 3, TOTAL))
    states = read_prompts(config, params, tokens, [5, SEGMENT, WINDOW + 2])
    others = np.array(random_tokens(config, 3, TOTAL, seed=9))
    others[1] = tokens[1]
    beside_others = read_prompts(config, params, others, [SEGMENT + 1, SEGMENT, 0])
    alone = read_prompts(config, params, tokens[1:2], [SEGMENT])
    for step in range(WINDOW + 3):
        row = jax.tree.map(lambda leaf: leaf[1], states)
        beside = jax.tree.map(lambda leaf: leaf[1], beside_others)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-5), row, beside)
        np.testing.assert_allclose(row.logits, alone.logits[0], rtol=0, atol=2e-5)
        read_next = tokens[:, SEGMENT + step]
        states, beside_others = (decode_step(config, params, state, read_next) for state in (states, beside_others))
        alone = decode_step(config, params, alone, read_next[1:2])
        if int(alone.filled[0]) == 0:  # at a block's end
            read_so_far = jnp.asarray(tokens[1:2, : int(alone.position[0])])
            memory = apply(config, params, read_so_far, init_state(config, params, 1)).state
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-5), alone.memory, memory)
            converted = decode.from_model_state(
                config, params, memory, tokens=read_so_far[:, -WINDOW:], position=alone.position, logits=alone.logits
            )
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-5), alone, converted)


def test_reading_may_stop_and_go_on_anywhere_with_one_compilation():
    config, params = CACHED["fixed_skip"], perturbed_params(CACHED["fixed_skip"])
    tokens = np.asarray(random_tokens(config, 2, TOTAL))
    expected = teacher_forced(config, params, tokens)
    compiled: Any = read  # its cache holds the programs of all tests
    state, done = decode.init(config, params, 2, segment_length=SEGMENT), np.zeros(2, int)
    programs = 0
    for counts in ([3, SEGMENT], [WINDOW, 0], [5, 1], [0, 2], [SEGMENT, WINDOW]):
        piece = np.zeros((2, SEGMENT), np.int32)
        for row, count in enumerate(counts):
            piece[row, :count] = tokens[row, done[row] : done[row] + count]
        state = read(config, params, state, piece, np.array(counts, np.int32))
        done += counts
        programs = programs or compiled._cache_size()
        np.testing.assert_allclose(state.logits, expected[[0, 1], done - 1], rtol=0, atol=2e-5)
    assert compiled._cache_size() == programs


@pytest.mark.parametrize("name", ["lstm_single", "vanilla"])
def test_bfloat16_decodes_near_its_forward_pass(name):
    config = dataclasses.replace(ALL[name], dtype="bfloat16")
    params = init_params(config, jax.random.key(0))
    tokens = np.asarray(random_tokens(config, 2, TOTAL))
    state = read_prompts(config, params, tokens, [SEGMENT - 2, 3])
    assert state.layers[0].ring.keys.dtype == jnp.bfloat16
    expected = teacher_forced(config, params, tokens)
    for step in range(5):
        position = np.array([SEGMENT - 2, 3]) + step
        np.testing.assert_allclose(state.logits, expected[[0, 1], position - 1], rtol=0, atol=0.1)
        state = decode_step(config, params, state, tokens[[0, 1], position])
