"""Memory of the backward pass: loops that stack their inputs again, and the order of gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from block_recurrent.model.layers.remat import in_backward_order, scan_stacked
from tests.support.architectures import CACHED, LSTM

STEPS, ROWS, DIM = 3, 4, 5
DOTS = dataclasses.replace(CACHED["fixed_skip"], remat="dots")


def step(shared, carry, inputs):
    kernel, key = inputs
    carry = jnp.tanh(carry @ kernel + shared) * jax.random.bernoulli(key, 0.8, carry.shape)
    return carry, jnp.sum(carry, axis=1)


def stacked_scan(shared, carry, inputs):
    return jax.lax.scan(functools.partial(step, shared), carry, jax.tree.map(lambda *x: jnp.stack(x), *inputs))


@pytest.fixture
def arguments():
    keys = jax.random.split(jax.random.key(0), 2 + 2 * STEPS)
    kernels = [jax.random.normal(key, (DIM, DIM)) for key in keys[2 : 2 + STEPS]]
    shared, carry = jax.random.normal(keys[0], (ROWS, DIM)), jax.random.normal(keys[1], (ROWS, DIM))
    return shared, carry, list(zip(kernels, keys[2 + STEPS :], strict=True))


def test_results_and_gradients_are_those_of_scan(arguments):
    def loss(scan, shared, carry, kernels, keys):
        carry, results = scan(shared, carry, list(zip(kernels, keys, strict=True)))
        return jnp.sum(jnp.sin(carry)) + jnp.sum(jnp.cos(results)), results

    shared, carry, inputs = arguments
    kernels, keys = zip(*inputs, strict=True)
    ours, expected = (
        jax.jit(jax.value_and_grad(functools.partial(loss, scan), argnums=(0, 1, 2), has_aux=True))(
            shared, carry, kernels, keys
        )
        for scan in (functools.partial(scan_stacked, DOTS, step), stacked_scan)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, expected)
    assert all(np.any(gradient != 0) for gradient in jax.tree.leaves(ours[1]))


@pytest.mark.parametrize("remat", ["none", "dots"])
@pytest.mark.parametrize(
    ("model", "stack"), [(CACHED["fixed_skip"], jnp.bfloat16), (LSTM, jnp.float32)], ids=["transformer", "lstm"]
)
def test_kernels_of_transformer_layers_are_stacked_in_the_dtype_of_the_activations(arguments, remat, model, stack):
    """The step casts them, so results and gradients are those of a stack in float32."""
    config = dataclasses.replace(model, remat=remat, dtype="bfloat16")
    shared, carry, inputs = arguments
    found = []

    def layer_step(_, carry, layer):
        found.append({name: leaf.dtype for name, leaf in layer.items()})
        carry = carry @ layer["kernel"].astype(jnp.bfloat16) * layer["scale"].astype(jnp.bfloat16)[None]
        return carry, jnp.sum(carry)

    def loss(scan, layers):
        carry_after, results = scan(layers)
        return jnp.sum(jnp.sin(carry_after.astype(jnp.float32))) + jnp.sum(results)

    def in_float32(layers):
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *layers)
        return jax.lax.scan(functools.partial(layer_step, None), start, stacked)

    layers = [{"kernel": kernel, "scale": 1 + shared[0]} for kernel, _ in inputs]
    start = carry.astype(jnp.bfloat16)
    ours = jax.grad(functools.partial(loss, functools.partial(scan_stacked, config, layer_step, None, start)))(layers)
    assert all(one == {"kernel": stack, "scale": jnp.float32} for one in found)
    jax.tree.map(np.testing.assert_array_equal, ours, jax.grad(functools.partial(loss, in_float32))(layers))


def test_no_stack_of_inputs_is_kept_for_the_backward_pass(arguments):
    shared, carry, inputs = arguments
    kernels, keys = zip(*inputs, strict=True)

    def kept(config):
        def scan(kernels):
            return scan_stacked(config, step, shared, carry, list(zip(kernels, keys, strict=True)))

        return [leaf.shape for leaf in jax.tree.leaves(jax.vjp(scan, kernels)[1])]

    assert (STEPS, DIM, DIM) not in kept(DOTS)
    assert (STEPS, ROWS, DIM) in kept(DOTS)  # intermediate results are
    assert (STEPS, DIM, DIM) in kept(CACHED["fixed_skip"])
    assert (STEPS, DIM, DIM) in kept(dataclasses.replace(CACHED["feedback_fixed_skip"], remat="dots"))


@pytest.mark.parametrize(
    ("name", "remat", "barriers"),
    [
        ("fixed_skip", "none", 0),
        ("fixed_skip", "dots", 2),
        ("fixed_skip", "full", 2),
        ("feedback_fixed_skip", "dots", 0),
    ],
)
def test_gradients_of_layers_are_finished_in_order(name, remat, barriers):
    """One barrier in the forward pass, and one in the backward pass that has the gradients of parameters and inputs."""
    config = dataclasses.replace(CACHED[name], remat=remat)
    layer = nnx.Linear(DIM, DIM, rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)

    def loss(params, x):
        (layer,), x = in_backward_order(config, [nnx.merge(graph, params)], x)
        return jnp.sum(layer(x))

    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(params, jnp.ones((ROWS, DIM)))
    found = [one for one in jaxpr.eqns if one.primitive.name == "optimization_barrier"]
    assert len(found) == barriers
    assert all([var.aval.shape for var in one.outvars] == [(DIM,), (DIM, DIM), (ROWS, DIM)] for one in found)
