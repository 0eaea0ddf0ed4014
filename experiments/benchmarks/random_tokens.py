"""Training steps on random tokens; their cost does not depend on the tokens."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from block_recurrent.config import RunConfig
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.step import SegmentBatch, TrainState, init_train_state
from experiments.benchmarks.train import step_of


def compile_step(run: RunConfig) -> Any:
    """Compiles a run's step; the `memory_analysis()` of the result is the memory of a call."""
    arguments = jax.eval_shape(lambda: (_state(run), _batch(run)))
    return jax.jit(step_of(run), donate_argnums=0).lower(*arguments).compile()


def repeat(step: Any, run: RunConfig, times: int = 1) -> Callable[[], object]:
    """Returns a function that takes a compiled step `times` times, each from the state of the one before."""
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
