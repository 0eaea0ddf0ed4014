"""Projections of tokens or of states to keys, values and queries."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.model.layers.linear import linear
from block_recurrent.model.layers.norm import RMSNorm
from block_recurrent.model.ops.attention import KeyValues, unit_length
from block_recurrent.model.ops.dropout import tiled_dropout
from block_recurrent.typing import Activations, Key


class Projected(NamedTuple):
    """Keys, values and queries of tokens or of states.

    Attributes:
        kv: keys and values (B, T, N, H), shared by self- and cross-attention.
        queries: (B, T, N, H) of self-attention.
        cross_queries: (B, T, N, H) of cross-attention; None without it.
    """

    kv: KeyValues
    queries: Float[Array, "B T N H"]
    cross_queries: Float[Array, "B T N H"] | None


class Projections(nnx.Module):
    """Norm, followed by projections to keys, values and queries; keys and queries have unit length.

    Attributes:
        attention_scale: scale per head of self-attention.
        cross_attention_scale: scale per head of cross-attention.
    """

    def __init__(self, config: ModelConfig, *, cross_attention: bool, rngs: nnx.Rngs):
        dim = config.num_heads * config.head_dim
        self.num_heads = config.num_heads
        self.dropout_rate = config.dropout_rate
        self.norm = RMSNorm(config)
        self.keys = linear(config, config.embed_dim, dim, rngs=rngs)
        self.values = linear(config, config.embed_dim, dim, rngs=rngs)
        self.queries = linear(config, config.embed_dim, dim, rngs=rngs)
        self.attention_scale = nnx.Param(jnp.ones(config.num_heads))
        self.cross_attention = cross_attention
        if cross_attention:
            self.cross_queries = linear(config, config.embed_dim, dim, rngs=rngs)
            self.cross_attention_scale = nnx.Param(jnp.ones(config.num_heads))

    def __call__(
        self,
        x: Activations,
        *,
        positions: Float[Array, "T D"] | None = None,
        dropout_key: Key | None = None,
        fused_kernel: Float[Array, "D NPH"] | None = None,
    ) -> Projected:
        """Projects `x`.

        Args:
            x: tokens or states.
            positions: added after the norm, so keys, values and queries all depend on them; None adds nothing.
            dropout_key: None switches dropout off.
            fused_kernel: result of `fused_kernel()`, if this is a step of a loop.
        """
        x = self.norm(x)
        if positions is not None:
            x = x + jnp.broadcast_to(positions.astype(x.dtype), x.shape)
        x = tiled_dropout(x, self.dropout_rate, dropout_key)
        kernel = self.fused_kernel() if fused_kernel is None else fused_kernel
        product = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)  # flattened as in `linear`
        parts = product.reshape(*x.shape[:-1], self.num_heads, 4 if self.cross_attention else 3, -1)
        unit = unit_length(parts[..., 1:, :])
        return Projected(
            kv=KeyValues(unit[..., 0, :], parts[..., 0, :]),
            queries=unit[..., 1, :],
            cross_queries=unit[..., 2, :] if self.cross_attention else None,
        )

    def fused_kernel(self) -> Float[Array, "D NPH"]:
        """Returns the kernels of values, keys, queries and cross-queries as one: one product replaces P = 3 or 4.

        The P vectors of a head are neighbours, so a mesh that shards the kernels by heads shards this one likewise.
        """
        cross = [self.cross_queries] if self.cross_attention else []
        kernels = [module.kernel[...] for module in (self.values, self.keys, self.queries, *cross)]
        dim = len(kernels[0])
        return jnp.stack([kernel.reshape(dim, self.num_heads, -1) for kernel in kernels], axis=2).reshape(dim, -1)
