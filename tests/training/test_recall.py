"""Recall of tokens at three distances: beyond the window, beyond layers x window, and beyond the segment.

With an external memory also far beyond the window, which gradients do not reach.

Accuracies, other settings and what was tried: docs/recurrence.md, *What makes a state learn*.
"""

import dataclasses
import functools
from typing import Any

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
WINDOW, LAYERS, ROWS = 8, 2, 32
FIRST_PAIR = KEYS + VALUES
FIRST_FILLER = FIRST_PAIR + KEYS * VALUES
CHANCE = 1 / VALUES
# Hundreds of steps repay the time that optimised code takes to compile; `conftest.py` switches it off.
OPTIMIZED: Any = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}


@dataclasses.dataclass(frozen=True)
class Task:
    """Documents of key-value pairs in random order, filler, and then keys, each followed by its value.

    Attributes:
        length: tokens of a document.
        queries: keys at its end.
        segments: segments of a document, all in one training step.
    """

    length: int
    queries: int
    segments: int = 1

    @property
    def first_query(self) -> int:
        return self.length + 1 - 2 * self.queries

    @property
    def distances(self) -> range:
        """Distances between a pair and the first query."""
        return range(self.first_query - KEYS + 1, self.first_query + 1)

    def documents(self, rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens and the weights of new documents; only the values at the end are scored."""
        tokens = rng.integers(FIRST_FILLER, FIRST_FILLER + FILLERS, (rows, self.length + 1))
        weights = np.zeros((rows, self.length), np.float32)
        values = rng.integers(0, VALUES, (rows, KEYS))
        order = np.argsort(rng.random((rows, KEYS)), axis=1)
        tokens[:, :KEYS] = FIRST_PAIR + order * VALUES + np.take_along_axis(values, order, axis=1)
        for position in range(self.first_query, self.length, 2):
            key = rng.integers(0, KEYS, rows)
            tokens[:, position] = key
            tokens[:, position + 1] = KEYS + values[np.arange(rows), key]
            weights[:, position] = 1
        return tokens.astype(np.int32), weights

    def batches(self, rng: np.random.Generator, segments_in_step: int) -> list[SegmentBatch]:
        """Returns the training steps on one document for each row."""
        tokens, weights = self.documents(rng, ROWS)
        starts = np.zeros((ROWS, self.segments), bool)
        starts[:, 0] = True
        shape = (ROWS, self.segments, self.length // self.segments)
        arrays = [x.reshape(shape) for x in (tokens[:, :-1], tokens[:, 1:], weights)] + [starts]
        if segments_in_step == 1:
            steps = [[x[:, number] for x in arrays] for number in range(self.segments)]
        else:
            assert segments_in_step == self.segments
            steps = [arrays]
        return [SegmentBatch(*map(jnp.asarray, step)) for step in steps]


BEYOND_WINDOW = Task(length=24, queries=5)
BEYOND_LAYERS = Task(length=48, queries=4)
BEYOND_SEGMENT = Task(length=64, queries=4, segments=4)
FAR_BEYOND_WINDOW = Task(length=128, queries=4, segments=16)  # segments of one window, for an external memory


def accuracy_after_training(
    task: Task,
    *,
    recurrent: bool,
    steps: int,
    segments_in_step: int | None = None,
    gate: str = "lstm",
    gate_init_bias: float | None = 3.0,
    gate_rate_multiplier: float = 1.0,
    memory: bool = False,
) -> float:
    """Returns the accuracy of the first query on new documents; the answers before later queries give theirs away.

    Training ends early at an accuracy above 0.98.
    """
    config = ModelConfig(
        vocab_size=FIRST_FILLER + FILLERS,
        embed_dim=64,
        num_layers=LAYERS,
        num_heads=2,
        head_dim=32,
        mlp_dim=128,
        window_length=WINDOW,
        recurrent_layers=(1,) if recurrent else (),
        num_states=8,
        gate=gate,
        gate_init_bias=gate_init_bias,
        memory_layers=(1,) if memory else (),
        memory_size=task.length,
        memory_neighbors=16,
    )
    settings = OptimizerConfig(
        schedule="constant", warmup_steps=100, max_rate=0.02, gate_rate_multiplier=gate_rate_multiplier
    )
    optimizer = make_optimizer(settings, steps)
    step = jax.jit(functools.partial(train_step, config, optimizer), donate_argnums=0, compiler_options=OPTIMIZED)
    state = init_train_state(config, optimizer, seed=0, batch_size=ROWS)
    held_out, _ = task.documents(np.random.default_rng(1), 2000)

    @jax.jit
    def score(params: Any, tokens: jax.Array) -> jax.Array:
        state, logits = init_state(config, params, len(tokens)), []
        for segment in jnp.split(tokens[:, :-1], task.segments if memory else 1, axis=1):
            output = apply(config, params, segment, state)
            state, logits = output.state, [*logits, output.logits]
        answers = jnp.argmax(jnp.concatenate(logits, axis=1)[:, task.first_query], -1)
        return jnp.mean(answers == tokens[:, task.first_query + 1])

    rng, accuracy, number = np.random.default_rng(0), 0.0, 0
    while number < steps:
        for batch in task.batches(rng, segments_in_step or task.segments):
            state, _ = step(state, batch)
            number += 1
        if number % 100 == 0:
            accuracy = float(score(state.params, held_out))
            if accuracy > 0.98:
                break
    return accuracy


def test_the_tasks_have_the_distances_of_their_names():
    assert min(BEYOND_WINDOW.distances) > WINDOW
    assert max(BEYOND_WINDOW.distances) <= LAYERS * WINDOW
    assert min(BEYOND_LAYERS.distances) > LAYERS * WINDOW
    assert 3 * BEYOND_SEGMENT.length // BEYOND_SEGMENT.segments < min(BEYOND_SEGMENT.distances)
    assert min(FAR_BEYOND_WINDOW.distances) > 14 * WINDOW


@pytest.mark.slow
@pytest.mark.parametrize("task", [BEYOND_WINDOW, BEYOND_LAYERS, BEYOND_SEGMENT], ids=str)
def test_recurrence_recalls(task):
    assert accuracy_after_training(task, recurrent=True, steps=1200) > 0.95


@pytest.mark.slow
def test_an_external_memory_recalls_what_left_the_window_fourteen_segments_ago():
    """Gradients never reach what is stored: the queries and the rest of the model learn to use it."""
    accuracy = accuracy_after_training(FAR_BEYOND_WINDOW, recurrent=False, memory=True, steps=1200)
    assert accuracy > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("task", [BEYOND_LAYERS, BEYOND_SEGMENT, FAR_BEYOND_WINDOW], ids=str)
def test_without_recurrence_the_answer_is_a_guess(task):
    accuracy = accuracy_after_training(task, recurrent=False, steps=1200)
    assert abs(accuracy - CHANCE) < 0.05  # five standard errors of 2000 rows


@pytest.mark.slow
def test_nothing_beyond_the_segment_is_learned_from_one_segment_in_a_step():
    """The gates alone do not suffice: no gradient connects the question with the pair."""
    accuracy = accuracy_after_training(BEYOND_SEGMENT, recurrent=True, steps=1200, segments_in_step=1)
    assert abs(accuracy - CHANCE) < 0.05
