"""Gradients are added between devices once per step, in the dtype of the products that compute them."""

import dataclasses
import functools
from typing import Any

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
from block_recurrent.parallel.sharding import make_mesh, place_rows, shardings, with_shardings
from block_recurrent.training.step import SegmentBatch, init_train_state, train_step
from block_recurrent.training.step_program import across_devices
from block_recurrent.trees import named_leaves
from tests.support.architectures import ALL, CACHED, WINDOW, random_tokens

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
    divided = jax.jit(add_once(mesh, jnp.float32, set(), gradients_of))
    gradients, (per_row, mean) = divided(PARAMS, INPUTS, jnp.float32(0.5))
    expected, (rows, _) = gradients_of(PARAMS, INPUTS, 0.5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), gradients, expected)
    np.testing.assert_allclose(per_row, rows, rtol=1e-6)
    np.testing.assert_allclose(mean, [2 / 3] * 4)  # a scalar becomes one element per device


def test_kernels_are_exchanged_in_the_dtype_of_the_activations_and_the_rest_in_float32():
    mesh = make_mesh(MeshConfig(data=4))
    divided = jax.jit(add_once(mesh, jnp.bfloat16, set(), gradients_of))
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


def step_and_arguments(config, mesh, optimizer, **passes):
    """Returns the divided step, and shapes of its arguments."""
    state = jax.eval_shape(functools.partial(init_train_state, config, optimizer, seed=0, batch_size=ROWS))
    tokens = jnp.zeros((ROWS, 2 * WINDOW), jnp.int32)
    batch = SegmentBatch(tokens, tokens, jnp.ones(tokens.shape), jnp.zeros(ROWS, bool))
    division = across_devices(config, mesh, state.params, **passes)
    step = jax.jit(functools.partial(train_step, config, optimizer, division=division))
    return step, with_shardings(mesh, state), with_shardings(mesh, batch)


def program_of(step, *arguments):
    text = step.lower(*arguments).compile().as_text()
    assert text is not None
    return parse_program(text)


def bytes_of(leaves):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


@pytest.mark.parametrize("name", ["fixed_skip", pytest.param("feedback_fixed_skip", marks=pytest.mark.slow)])
def test_a_step_exchanges_each_gradient_once(name):
    config = dataclasses.replace(ALL[name], scan_layers=True)
    mesh = make_mesh(MeshConfig(data=4))
    program = program_of(*step_and_arguments(config, mesh, optax.sgd(0.1)))
    exchanged = collectives(program)
    gradients = bytes_of(jax.tree.leaves(abstract_params(config)))
    assert gradients <= exchanged["all-reduce"].bytes <= gradients + 200  # and a few sums over rows
    assert exchanged.keys() == {"all-reduce"}
    assert all(one.times == 1 for one in executions(program) if one.instruction.opcode == "all-reduce")


LOOPS = dataclasses.replace(CACHED["fixed_skip"], num_layers=6, recurrent_layers=(3,), scan_layers=True, remat="dots")


def test_a_loop_over_layers_exchanges_the_gradients_of_its_kernels():
    """The loops have the layers 0 to 2, and 4 and 5."""
    mesh, params = make_mesh(MeshConfig(data=4)), abstract_params(LOOPS)
    program = program_of(*step_and_arguments(LOOPS, mesh, optax.sgd(0.1)))
    gradients = bytes_of(jax.tree.leaves(params))
    kernels = bytes_of(
        leaf
        for layer, leaves in params["layers"].items()
        for name, leaf in named_leaves(leaves).items()
        if layer != "layer_03" and name.endswith("kernel")
    )
    reduced = [one for one in executions(program) if one.instruction.opcode == "all-reduce"]
    in_loops = [one for one in reduced if one.times != 1]
    assert {one.times for one in in_loops} == {3, 2}
    sizes = [(one.times or 0) * array.logical_bytes for one in in_loops for array in one.instruction.arrays]
    assert sum(sizes) == kernels
    assert gradients <= collectives(program)["all-reduce"].bytes <= gradients + 200


@pytest.mark.parametrize(
    ("remat", "segments"),
    [("dots", 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("none", 1), ("dots", 2)))],
)
def test_a_step_with_loops_is_that_of_one_device(remat, segments):
    """With several segments of each row, too, which `jit_train_step` does not exchange in loops."""
    config = dataclasses.replace(LOOPS, remat=remat)
    rows = (ROWS,) if segments == 1 else (ROWS, segments)
    tokens: Any = np.asarray(random_tokens(config, ROWS * segments, 2 * WINDOW + 1)).reshape(*rows, -1)
    weights: Any = np.ones((*rows, 2 * WINDOW), np.float32)
    starts: Any = np.zeros(rows, bool)
    batch = SegmentBatch(tokens[..., :-1], tokens[..., 1:], weights, starts)
    results = []
    for devices in (1, 4):
        mesh, optimizer = make_mesh(MeshConfig(data=devices)), optax.sgd(0.1)
        step, *_ = step_and_arguments(config, mesh, optimizer)
        state = init_train_state(config, optimizer, seed=0, batch_size=ROWS)
        placed = jax.device_put(state, shardings(mesh, state))
        results.append(step(placed, place_rows(mesh, batch, ROWS))[0].params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), *results)


def test_gradients_are_exchanged_in_no_loop_that_runs_several_times_per_step():
    mesh = make_mesh(MeshConfig(data=4))

    def in_loops(config, **passes):
        return across_devices(config, mesh, abstract_params(config), **passes).in_loops

    assert in_loops(LOOPS) is not None
    assert in_loops(LOOPS, passes=2) is None
    assert in_loops(dataclasses.replace(LOOPS, feedback=True)) is None
    assert in_loops(dataclasses.replace(LOOPS, scan_layers=False)) is None


@pytest.mark.parametrize("config", [LOOPS, dataclasses.replace(LOOPS, dtype="bfloat16")], ids=["float32", "bfloat16"])
def test_a_loop_exchanges_kernels_in_the_dtype_of_the_activations(config):
    mesh = make_mesh(MeshConfig(data=4))
    step, *arguments = step_and_arguments(config, mesh, optax.sgd(0.1))
    jaxpr = str(jax.make_jaxpr(step)(*arguments))
    dim, hidden = config.embed_dim, config.mlp_dim
    sums = [line for line in jaxpr.splitlines() if "= psum" in line and f"[{dim},{hidden}]" in line]
    short = {"float32": "f32", "bfloat16": "bf16"}[config.dtype]
    assert sums
    assert all(f":{short}[{dim},{hidden}]" in line for line in sums)
