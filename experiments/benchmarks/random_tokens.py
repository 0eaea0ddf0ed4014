"""Training steps on random tokens: what they cost does not depend on which tokens they are."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from block_recurrent.config import RunConfig
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.step import SegmentBatch, TrainState, init_train_state
from experiments.benchmarks.train import step_of


def compile_step(run: RunConfig) -> Any:
    """The step of a run, compiled and not yet called; its `memory_analysis()` tells what a call takes."""
    arguments = jax.eval_shape(lambda: (_state(run), _batch(run)))
    return jax.jit(step_of(run), donate_argnums=0).lower(*arguments).compile()


def repeat(step: Any, run: RunConfig, times: int = 1) -> Callable[[], object]:
    """A function that takes a compiled step `times` times, each on what the one before left."""
    state, batch = jax.jit(lambda: (_state(run), _batch(run)))()

    def take() -> object:
        nonlocal state
        for _ in range(times):
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
        return state

    return take


def _state(run: RunConfig) -> TrainState:
    optimizer = make_optimizer(run.optimizer, run.train.num_steps)
    return init_train_state(run.model, optimizer, seed=0, batch_size=run.data.batch_size)


def _batch(run: RunConfig) -> SegmentBatch:
    rows, length = run.data.batch_size, run.data.segment_length
    tokens = jax.random.randint(jax.random.key(0), (rows, length + 1), 0, run.model.vocab_size)
    return SegmentBatch(
        tokens=tokens[:, :-1],
        targets=tokens[:, 1:],
        weights=jnp.ones((rows, length)),
        start_of_document=jnp.zeros(rows, bool),
    )
