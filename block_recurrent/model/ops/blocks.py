"""Segments as blocks of W tokens, each beside the block before it."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def split_blocks(x: Shaped[Array, "B T *rest"], block_length: int) -> Shaped[Array, "B C W *rest"]:
    """Cuts the token axis into blocks."""
    batch, length, *rest = x.shape
    return x.reshape(batch, length // block_length, block_length, *rest)


def merge_blocks(x: Shaped[Array, "B C W *rest"]) -> Shaped[Array, "B T *rest"]:
    """Undoes `split_blocks`."""
    batch, blocks, block_length, *rest = x.shape
    return x.reshape(batch, blocks * block_length, *rest)


def with_previous_block(
    x: Shaped[Array, "B C W *rest"], cache: Shaped[Array, "B W *rest"]
) -> Shaped[Array, "B C K *rest"]:
    """Puts each block behind the one before it (K = 2W); before the first block stands the cache."""
    previous = jnp.concatenate([cache[:, None], x[:, :-1]], axis=1)
    return jnp.concatenate([previous, x], axis=2)
