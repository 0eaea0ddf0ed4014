"""Gradients are added between devices once per step, in the dtype of the products that compute them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from block_recurrent.aot.collectives import collectives
from block_recurrent.aot.hlo import executions, parse_program
from block_recurrent.config import MeshConfig
from block_recurrent.model.language_model import abstract_params
from block_recurrent.parallel.row_gradients import add_once, rows_alone_are_divided
from block_recurrent.parallel.sharding import make_mesh, with_shardings
from block_recurrent.training.step import SegmentBatch, init_train_state, train_step
from block_recurrent.training.step_program import across_devices
from tests.support.architectures import ALL, CACHED, WINDOW

ROWS = 8


def gradients_of(params, rows, scale):
    def loss(params):
        product = rows @ params["mlp"]["kernel"].astype(rows.dtype)
        hidden = jnp.tanh(product + params["bias"].astype(rows.dtype)[None])
        per_row = jnp.sum(hidden, axis=-1) * scale
        return jnp.sum(per_row), (per_row, jnp.mean(params["bias"]))

    return jax.grad(loss, has_aux=True)(params)


PARAMS = {
    "mlp": {"kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)},
    "bias": np.asarray([1, -2, 3], np.float32),
}
INPUTS = np.sin(np.arange(ROWS * 4, dtype=np.float32)).reshape(ROWS, 4)


def test_added_gradients_are_those_of_all_rows():
    mesh = make_mesh(MeshConfig(data=4))
    divided = jax.jit(add_once(mesh, jnp.float32, gradients_of))
    gradients, (per_row, mean) = divided(PARAMS, INPUTS, jnp.float32(0.5))
    expected, (rows, _) = gradients_of(PARAMS, INPUTS, 0.5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), gradients, expected)
    np.testing.assert_allclose(per_row, rows, rtol=1e-6)
    np.testing.assert_allclose(mean, [2 / 3] * 4)  # a scalar becomes one element per device


def test_kernels_are_exchanged_in_the_dtype_of_the_activations_and_the_rest_in_float32():
    mesh = make_mesh(MeshConfig(data=4))
    divided = jax.jit(add_once(mesh, jnp.bfloat16, gradients_of))
    text = divided.lower(PARAMS, INPUTS.astype(jnp.bfloat16), jnp.float32(1)).as_text()
    sums = [line for line in text.splitlines() if "-> tensor<" in line and "}) :" in line]
    assert sorted(line.rpartition("-> ")[2] for line in sums) == ["tensor<3xf32>", "tensor<4x3xbf16>"]


@pytest.mark.parametrize(
    ("mesh", "alone"),
    [
        (MeshConfig(data=8), True),
        (MeshConfig(data=1), False),
        (MeshConfig(data=4, fsdp=2), False),
        (MeshConfig(data=4, tensor=2), False),
    ],
)
def test_gradients_are_added_once_where_rows_alone_are_divided(mesh, alone):
    config = CACHED["fixed_skip"]
    assert rows_alone_are_divided(make_mesh(mesh), abstract_params(config)) == alone


@pytest.mark.parametrize("name", ["fixed_skip", pytest.param("feedback_fixed_skip", marks=pytest.mark.slow)])
def test_a_step_exchanges_each_gradient_once_and_nothing_in_a_loop(name):
    config = dataclasses.replace(ALL[name], scan_layers=True)
    mesh, optimizer = make_mesh(MeshConfig(data=4)), optax.sgd(0.1)
    params = abstract_params(config)
    state = jax.eval_shape(functools.partial(init_train_state, config, optimizer, seed=0, batch_size=ROWS))
    tokens = jnp.zeros((ROWS, 2 * WINDOW), jnp.int32)
    batch = SegmentBatch(tokens, tokens, jnp.ones(tokens.shape), jnp.zeros(ROWS, bool))
    step = jax.jit(functools.partial(train_step, config, optimizer, **across_devices(config, mesh, params)))
    text = step.lower(with_shardings(mesh, state), with_shardings(mesh, batch)).compile().as_text()
    assert text is not None
    program = parse_program(text)
    exchanged = collectives(program)
    gradients = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    assert gradients <= exchanged["all-reduce"].bytes <= gradients + 200  # and a few sums over rows
    assert exchanged.keys() == {"all-reduce"}
    assert all(one.times == 1 for one in executions(program) if one.instruction.opcode == "all-reduce")
