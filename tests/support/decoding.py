"""Prefill of several rows and the forward pass that decoding is compared with."""

from typing import Any

import jax
import numpy as np

from block_recurrent.config import ModelConfig
from block_recurrent.generation import decode_state
from block_recurrent.generation.decode_state import DecodeState
from block_recurrent.generation.prefill import prefill
from block_recurrent.model.language_model import apply, init_state
from tests.support.architectures import WINDOW

SEGMENT = 2 * WINDOW
TOTAL = 3 * SEGMENT + 3  # tokens of the longest row

run = jax.jit(apply, static_argnums=0)
jit_prefill = jax.jit(prefill, static_argnums=0)


def prefill_rows(config: ModelConfig, params: Any, tokens: np.ndarray, lengths: Any) -> DecodeState:
    """Processes the first `lengths` tokens of each row, in calls of one shape."""
    lengths, chunk = np.asarray(lengths), SEGMENT if config.window_length else TOTAL
    state = decode_state.init(config, params, len(tokens), segment_length=chunk)
    for start in range(0, max(lengths.max(), 1), chunk):
        piece = np.zeros((len(tokens), chunk), np.int32)
        part = tokens[:, start : start + chunk]
        piece[:, : part.shape[1]] = part
        state = jit_prefill(config, params, state, piece, np.clip(lengths - start, 0, chunk).astype(np.int32))
    return state


def teacher_forced_logits(config: ModelConfig, params: Any, tokens: np.ndarray) -> np.ndarray:
    """Returns the logits (B, T, V) of the parallel forward pass."""
    window = config.window_length or 1
    padded = np.pad(tokens, ((0, 0), (0, -tokens.shape[1] % window)))
    return np.asarray(run(config, params, padded, init_state(config, params, len(tokens))).logits)[:, : tokens.shape[1]]
