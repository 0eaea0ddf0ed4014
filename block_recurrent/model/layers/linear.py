"""The dense layer, with the initialisation and dtypes of this model."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig


class Linear(nnx.Linear):
    """`nnx.Linear` on flattened rows.

    The gradient of a kernel is then a product of two matrices. With more axes, XLA on CPU first transposes the inputs
    in memory: a feed-forward network of width 512 took 1.2 times as long.
    """

    def __call__(self, inputs: Float[Array, "*batch I"], out_sharding: Any = None) -> Float[Array, "*batch O"]:
        """Returns inputs @ kernel + bias."""
        outputs = super().__call__(inputs.reshape(-1, inputs.shape[-1]), out_sharding=out_sharding)
        return outputs.reshape(*inputs.shape[:-1], -1)


def linear(
    config: ModelConfig,
    in_dim: int,
    out_dim: int,
    *,
    rngs: nnx.Rngs,
    init_scale: float = 1.0,
    bias_init: nnx.Initializer | None = None,
) -> Linear:
    """Creates a dense layer with a float32 kernel (in_dim, out_dim), applied in the dtype of the activations.

    Args:
        config: the model; its dtype is used.
        in_dim: number of input features.
        out_dim: number of output features.
        rngs: random numbers for the kernel, a truncated normal of variance `init_scale` / in_dim.
        init_scale: variance of the kernel, multiplied by in_dim.
        bias_init: initialiser of the bias; None means no bias.
    """
    return Linear(
        in_dim,
        out_dim,
        use_bias=bias_init is not None,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.float32,
        kernel_init=nnx.initializers.variance_scaling(init_scale, "fan_in", "truncated_normal"),
        bias_init=bias_init or nnx.initializers.zeros_init(),
        rngs=rngs,
    )
