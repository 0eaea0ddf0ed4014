"""The product after the activation function: values, gradients, and what the backward pass stores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.model.ops.relu import relu_product


def plain(x, kernel):
    return jax.nn.relu(x) @ kernel


def draw(dtype=jnp.float32, rows: int = 6, hidden: int = 16, width: int = 4):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((rows, hidden), (hidden, width), (rows, width))
    x, kernel, weights = (jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True))
    return x.at[0, 0].set(0), kernel, weights


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_are_those_of_the_two_operations(dtype):
    x, kernel, weights = draw(dtype)

    def results(function):
        output, pull = jax.vjp(function, x, kernel)
        return output, *pull(weights)

    for ours, expected in zip(results(relu_product), results(plain), strict=True):
        assert ours.dtype == expected.dtype
        np.testing.assert_allclose(ours.astype(jnp.float32), expected.astype(jnp.float32), rtol=1e-6, atol=1e-6)


def test_the_backward_pass_does_not_store_the_result_of_the_activation():
    x, kernel, weights = draw(rows=256, hidden=1024, width=64)

    def peak(function):
        def loss(x, kernel):
            for _ in range(4):  # layers
                x = jnp.tanh(function(x, kernel)) @ kernel.T
            return jnp.sum((x @ kernel) * weights)

        memory = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, kernel).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert peak(plain) - peak(relu_product) >= 2 * x.nbytes
