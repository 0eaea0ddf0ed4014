"""Root-mean-square normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig

_EPSILON = 1e-6


class RMSNorm(nnx.Module):
    """x / rms(x) * scale, computed in float32, without mean or bias (Zhang and Sennrich 2019).

    `nnx.RMSNorm` returns float32 for bfloat16 inputs, or else rounds the scale to bfloat16, and multiplies in another
    order.
    """

    def __init__(self, config: ModelConfig):
        self.scale = nnx.Param(jnp.ones(config.embed_dim))

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalises the last axis; the result has the dtype of `x`."""
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        scale = jnp.broadcast_to(self.scale[...], x.shape)
        return (wide * jax.lax.rsqrt(mean_square + _EPSILON) * scale).astype(x.dtype)
