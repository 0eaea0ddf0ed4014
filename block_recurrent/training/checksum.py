"""A checksum of arrays that does not depend on how they lie on devices."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from block_recurrent.trees import named_leaves


def checksums(tree: Any) -> dict[str, int]:
    """A 32-bit number for each leaf, by path; every flipped bit changes it.

    Each word is multiplied with an odd number of its place and all are added modulo 2^32: integers, so that the order
    of the sum, and with it the mesh, does not matter.

    Args:
        tree: arrays of numbers, booleans or random keys.
    """
    # One at a time: with several processes, programs under way together may wait for one another's collectives.
    return {name: int(_leaf_checksum(leaf)) for name, leaf in named_leaves(tree).items()}


@jax.jit
def _leaf_checksum(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    words = [_words(leaf)] if leaf.dtype.itemsize <= 4 else list(jnp.moveaxis(_words(leaf), -1, 0))
    total = jnp.uint32(math.prod(leaf.shape) % 2**32)
    for word in words:
        total = total * jnp.uint32(3) + jnp.sum(word * (2 * place + 1), dtype=jnp.uint32)
    return total


def _words(leaf: jax.Array) -> jax.Array:
    """The leaf's bits as 32-bit words, one or (last axis) two to an element."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
