"""The one way this model makes a dense layer."""

import jax.numpy as jnp
from flax import nnx

from block_recurrent.config import ModelConfig


def linear(
    config: ModelConfig,
    in_dim: int,
    out_dim: int,
    *,
    rngs: nnx.Rngs,
    init_scale: float = 1.0,
    bias_init: nnx.Initializer | None = None,
) -> nnx.Linear:
    """A float32 kernel of shape (in_dim, out_dim), applied in the activations' dtype.

    Args:
        config: gives the dtype.
        in_dim: input features.
        out_dim: output features.
        rngs: draws the kernel: truncated normal of variance `init_scale` / in_dim.
        init_scale: variance of the kernel, times in_dim.
        bias_init: initialiser of a bias; None means no bias.
    """
    return nnx.Linear(
        in_dim,
        out_dim,
        use_bias=bias_init is not None,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.float32,
        kernel_init=nnx.initializers.variance_scaling(init_scale, "fan_in", "truncated_normal"),
        bias_init=bias_init or nnx.initializers.zeros_init(),
        rngs=rngs,
    )
