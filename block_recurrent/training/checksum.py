"""Checksums of arrays that do not depend on their sharding."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from block_recurrent.trees import named_leaves


def checksums(tree: Any) -> dict[str, int]:
    """Returns a 32-bit checksum of each leaf, by path; every flipped bit changes it.

    Each word is multiplied by an odd number that depends on its index, and the products are added modulo 2^32. Integer
    sums do not depend on their order, so the checksum does not depend on the mesh.

    Args:
        tree: arrays of numbers, booleans or random keys.
    """
    # One at a time: with several processes, concurrent programs may wait for one another's collectives.
    return {name: int(_leaf_checksum(leaf)) for name, leaf in named_leaves(tree).items()}


@jax.jit
def _leaf_checksum(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    index = jnp.zeros(leaf.shape, jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    words = [_words(leaf)] if leaf.dtype.itemsize <= 4 else list(jnp.moveaxis(_words(leaf), -1, 0))
    total = jnp.uint32(math.prod(leaf.shape) % 2**32)
    for word in words:
        total = total * jnp.uint32(3) + jnp.sum(word * (2 * index + 1), dtype=jnp.uint32)
    return total


def _words(leaf: jax.Array) -> jax.Array:
    """Returns the leaf's bits as 32-bit words: one for each element, or two along a new last axis."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
