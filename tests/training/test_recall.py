"""Recall of tokens that are more than layers x window back, within one segment: only recurrence can solve it."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.config import ModelConfig, OptimizerConfig
from block_recurrent.model.language_model import apply, init_state
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.step import SegmentBatch, init_train_state, train_step

KEYS = VALUES = 4
FILLERS = 2
WINDOW, BLOCKS, LAYERS, QUERIES = 8, 6, 2, 4
LENGTH = WINDOW * BLOCKS
FIRST_PAIR = KEYS + VALUES
FIRST_FILLER = FIRST_PAIR + KEYS * VALUES
CHANCE = 1 / VALUES


def recall_batch(rng: np.random.Generator, rows: int) -> SegmentBatch:
    """Returns rows of key-value pairs in random order, filler, and then keys, each followed by its value.

    Only the values at the end are scored.
    """
    tokens = rng.integers(FIRST_FILLER, FIRST_FILLER + FILLERS, (rows, LENGTH + 1))
    weights = np.zeros((rows, LENGTH), np.float32)
    values = rng.integers(0, VALUES, (rows, KEYS))
    order = np.argsort(rng.random((rows, KEYS)), axis=1)
    tokens[:, :KEYS] = FIRST_PAIR + order * VALUES + np.take_along_axis(values, order, axis=1)
    for position in range(LENGTH + 1 - 2 * QUERIES, LENGTH, 2):
        key = rng.integers(0, KEYS, rows)
        tokens[:, position] = key
        tokens[:, position + 1] = KEYS + values[np.arange(rows), key]
        weights[:, position] = 1
    assert LENGTH + 1 - 2 * QUERIES - KEYS > LAYERS * WINDOW
    tokens = tokens.astype(np.int32)
    start = np.ones(rows, bool)
    return SegmentBatch(*(jnp.asarray(x) for x in (tokens[:, :-1], tokens[:, 1:], weights, start)))


def accuracy_after_training(recurrent_layers: tuple[int, ...], *, steps: int, enough: float = 1.1) -> float:
    """Returns the accuracy of the first query on new rows; the answers before later queries could give theirs away."""
    config = ModelConfig(
        vocab_size=FIRST_FILLER + FILLERS,
        embed_dim=64,
        num_layers=LAYERS,
        num_heads=2,
        head_dim=32,
        mlp_dim=128,
        window_length=WINDOW,
        recurrent_layers=recurrent_layers,
        num_states=8,
        gate="lstm",
    )
    optimizer = make_optimizer(OptimizerConfig(schedule="constant", warmup_steps=100, max_rate=0.02), steps)
    step = jax.jit(functools.partial(train_step, config, optimizer), donate_argnums=0)
    state = init_train_state(config, optimizer, seed=0, batch_size=32)
    first_query = LENGTH + 1 - 2 * QUERIES

    @jax.jit
    def score(params, batch):
        logits = apply(config, params, batch.tokens, init_state(config, params, len(batch.tokens))).logits
        return jnp.mean(jnp.argmax(logits[:, first_query], -1) == batch.targets[:, first_query])

    rng, accuracy = np.random.default_rng(0), 0.0
    for number in range(1, steps + 1):
        state, _ = step(state, recall_batch(rng, 32))
        if number % 250 == 0:
            accuracy = float(score(state.params, recall_batch(np.random.default_rng(1), 2000)))
            if accuracy > enough:
                break
    return accuracy


@pytest.mark.slow
def test_recurrence_recalls_tokens_beyond_every_window():
    began = time.monotonic()
    assert accuracy_after_training((1,), steps=6000, enough=0.95) > 0.9
    assert time.monotonic() - began < 15 * 60


@pytest.mark.slow
def test_without_recurrence_the_answer_is_a_guess():
    assert abs(accuracy_after_training((), steps=1500) - CHANCE) < 0.05  # five standard errors of 2000 rows
