"""The compiled train step: compiled in the background, and like the jitted one."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.data.batching.training_data import open_training
from block_recurrent.parallel.sharding import make_mesh
from block_recurrent.training.evaluator import to_device
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.step import init_train_state
from block_recurrent.training.step_program import compiled_in_background, jit_train_step, lower_train_step
from tests.support.workdirs import run_config


@pytest.mark.slow
def test_the_step_compiled_in_the_background_is_the_jitted_one(store_folder):
    run = run_config(store_folder)
    mesh = make_mesh(run.mesh)
    optimizer = make_optimizer(run.optimizer, run.train.num_steps)
    batch = open_training(run.data, vocab_size=run.model.vocab_size).reader().read(0)

    def state():
        return init_train_state(run.model, optimizer, seed=0, batch_size=run.data.batch_size)

    with compiled_in_background(lower_train_step(run, mesh).compile) as take_step:
        ours = take_step(state(), to_device(mesh, batch, run.data.batch_size))
    expected = jit_train_step(run, mesh)(state(), to_device(mesh, batch, run.data.batch_size))
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)
        assert one.sharding == other.sharding


def test_only_the_call_waits_for_the_compiler():
    go_on = threading.Event()

    def compiler():
        assert go_on.wait(60)
        return lambda number: number + 1

    with compiled_in_background(compiler) as program:
        go_on.set()
        assert program(1) == 2


def test_an_error_of_the_compiler_arrives_at_the_call():
    def compiler():
        raise MemoryError("too large")

    with compiled_in_background(compiler) as program, pytest.raises(MemoryError, match="too large"):
        program(1)
