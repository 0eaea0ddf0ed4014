"""Division of segments into blocks of W tokens."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def split_blocks(x: Shaped[Array, "B T *rest"], block_length: int) -> Shaped[Array, "B C W *rest"]:
    """Splits the token axis into blocks."""
    batch, length, *rest = x.shape
    return x.reshape(batch, length // block_length, block_length, *rest)


def merge_blocks(x: Shaped[Array, "B C W *rest"]) -> Shaped[Array, "B T *rest"]:
    """Joins blocks along the token axis; the inverse of `split_blocks`."""
    batch, blocks, block_length, *rest = x.shape
    return x.reshape(batch, blocks * block_length, *rest)


def with_previous_block(
    x: Shaped[Array, "B C W *rest"], cache: Shaped[Array, "B W *rest"]
) -> Shaped[Array, "B C K *rest"]:
    """Prepends the previous block to each block (K = 2W), and the cache to the first one."""
    previous = jnp.concatenate([cache[:, None], x[:, :-1]], axis=1)
    return jnp.concatenate([previous, x], axis=2)
