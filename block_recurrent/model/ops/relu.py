"""The activation function of the feed-forward networks, together with the product after it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def relu_product(x: Float[Array, "R M"], kernel: Float[Array, "M D"]) -> Float[Array, "R D"]:
    """Returns max(x, 0) @ kernel.

    `x` and max(x, 0) are the largest arrays of a layer. The backward pass computes the second from the first again, so
    that only one is stored.

    Args:
        x: rows of hidden units.
        kernel: in the dtype of `x`.
    """
    return jax.nn.relu(x) @ kernel


def _forward(x: Array, kernel: Array) -> Any:
    return relu_product(x, kernel), (x, kernel)


def _backward(residuals: Any, gradient: Float[Array, "R D"]) -> tuple[Array, Array]:
    x, kernel = residuals
    active = x > 0
    # Without a dependency on the gradient, the compiler keeps the result of the forward pass (see `attention`).
    hidden = jnp.where(active, x + 0 * gradient[:, :1], 0)
    return jnp.where(active, gradient @ kernel.T, 0), hidden.T @ gradient


relu_product.defvjp(_forward, _backward)
