"""Training steps on random tokens: what they cost does not depend on which tokens they are."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from bench_train import repeated, step_of

from block_recurrent.config import RunConfig
from block_recurrent.optimizer import make_optimizer
from block_recurrent.train_step import SegmentBatch, init_train_state


def steps_on_random_tokens(run: RunConfig, times: int = 1) -> Callable[[], object]:
    """A function that takes `times` steps of a run, each on what the one before left; its first call compiles."""
    rows, length = run.data.batch_size, run.data.segment_length
    tokens = jax.random.randint(jax.random.key(0), (rows, length + 1), 0, run.model.vocab_size)
    batch = SegmentBatch(
        tokens=tokens[:, :-1],
        targets=tokens[:, 1:],
        weights=jnp.ones((rows, length)),
        start_of_document=jnp.zeros(rows, bool),
    )
    optimizer = make_optimizer(run.optimizer, run.train.num_steps)
    state = jax.jit(lambda: init_train_state(run.model, optimizer, seed=0, batch_size=rows))()
    return repeated(step_of(run), state, batch, times)
