"""Decoding against the teacher-forced forward pass: every architecture, every position, rows at different places."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent import decode
from block_recurrent.config import ModelConfig
from block_recurrent.decode import DecodeState
from block_recurrent.model import apply, init_params, init_state
from tests.architectures import ALL, CACHED, WINDOW, perturbed_params, random_tokens

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


@pytest.mark.parametrize("name", ALL)
def test_every_row_predicts_what_the_forward_pass_predicts_at_every_position(name):
    config, params = ALL[name], perturbed_params(ALL[name])
    tokens = np.asarray(random_tokens(config, len(LENGTHS), TOTAL))
    expected = teacher_forced(config, params, tokens)
    rows, lengths = np.arange(len(LENGTHS)), np.array(LENGTHS)
    state = read_prompts(config, params, tokens, lengths)
    for step in range(TOTAL - min(LENGTHS)):
        position = lengths + step
        scored = (position > 0) & (position <= TOTAL)
        np.testing.assert_allclose(
            np.asarray(state.logits)[scored], expected[rows, position - 1][scored], rtol=0, atol=2e-5
        ) if scored.any() and position.max() <= TOTAL else None
        if position.max() >= TOTAL:
            break
        state = decode_step(config, params, state, tokens[rows, position])
