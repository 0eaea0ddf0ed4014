"""Dropout of the official code: masks of 0 and 1 / (1 - rate), shared by the rows of the batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from block_recurrent.typing import Activations, Key

_TILE = 128  # tokens; the mask repeats after them


def dropout_mask(key: Key, rate: float, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Returns random factors of mean 1: 0 with probability `rate`, else 1 / (1 - rate)."""
    return keep_mask(key, rate, shape).astype(jnp.float32) / (1 - rate)


def keep_mask(key: Key, rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Returns the mask of `dropout_mask`: False with probability `rate`."""
    return jax.random.bernoulli(key, 1 - rate, shape)


def tiled_dropout(x: Activations, rate: float, key: Key | None) -> Activations:
    """Applies a mask of 128 tokens, repeated along the sequence and shared by all rows.

    Returns `x` itself without a key or at rate 0.
    """
    if key is None or rate == 0:
        return x
    _, length, dim = x.shape
    tile = dropout_mask(key, rate, (1, _TILE, dim))
    mask = jnp.tile(tile, (1, -(-length // _TILE), 1))[:, :length]
    return (x * mask).astype(x.dtype)
