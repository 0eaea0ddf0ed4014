"""The dense layer, with the initialisation and dtypes of this model."""

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
    """Creates a dense layer with a float32 kernel (in_dim, out_dim), applied in the dtype of the activations.

    Args:
        config: the model; its dtype is used.
        in_dim: number of input features.
        out_dim: number of output features.
        rngs: random numbers for the kernel, a truncated normal of variance `init_scale` / in_dim.
        init_scale: variance of the kernel, multiplied by in_dim.
        bias_init: initialiser of the bias; None means no bias.
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
