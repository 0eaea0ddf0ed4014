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


def half_blocks(pairs: Shaped[Array, "B C K *rest"]) -> Shaped[Array, "B 2*C 3*K//4 *rest"]:
    """Splits pairs of blocks (K = 2W) into the tokens that each half of the second block sees."""
    batch, blocks, length, *rest = pairs.shape
    half = length // 4
    halves = jnp.stack([pairs[:, :, : 3 * half], pairs[:, :, half:]], axis=2)
    return halves.reshape(batch, 2 * blocks, 3 * half, *rest)
