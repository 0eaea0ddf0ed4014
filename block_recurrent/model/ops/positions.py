"""Causal masks and T5's relative position bias (Raffel et al. 2020, section 2.1).

Queries are aligned with the last keys: of Q queries and K keys, query i has the position of key K - Q + i. A distance
is the position of the query minus the position of the key.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

NUM_BUCKETS = 32
MAX_DISTANCE = 128
_TILE = 128  # queries
_EXACT = NUM_BUCKETS // 2  # each smaller distance has its own bucket; buckets of larger ones grow logarithmically


def t5_bucket(distance: np.ndarray) -> np.ndarray:
    """Returns the bucket (int32, 0 to 31) of each distance; negative distances have bucket 0, as distance 0.

    The logarithm is float32, as in the official code, because its rounding decides the limits of the buckets.
    """
    distance = np.maximum(distance, 0)
    ratio = distance.astype(np.float32) / np.float32(_EXACT) + np.finfo(np.float32).eps
    scale = np.float32(np.log(MAX_DISTANCE / _EXACT))
    octaves = np.log(np.maximum(ratio, np.float32(1))) / scale
    logarithmic = _EXACT + (octaves * np.float32(NUM_BUCKETS - _EXACT)).astype(np.int32)
    return np.where(distance < _EXACT, distance, np.minimum(logarithmic, NUM_BUCKETS - 1)).astype(np.int32)


def relative_bias(table: Float[Array, "N buckets"], num_queries: int, num_keys: int) -> Float[Array, "N Q K"]:
    """Returns the bias of each pair of query and key, which depends on their distance alone.

    The matrix is constant along its diagonals. Therefore only the rows of the last 128 queries are computed, for more
    keys, and the other rows are slices of them. The rows are the product of `table` and a one-hot matrix. The product
    is exact, and so is its gradient, again a product; the gradient of indexing would scatter Q * K values into 32
    buckets.
    """
    rows = min(num_queries, _TILE)
    starts = [rows * tile for tile in reversed(range(-(-num_queries // rows)))]
    distances = num_keys - rows + np.arange(rows)[:, None] - np.arange(starts[0] + num_keys)
    one_hot = jax.nn.one_hot(t5_bucket(distances), NUM_BUCKETS, axis=0)
    last = jnp.einsum("nb,bqk->nqk", table, one_hot, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([last[:, :, start : start + num_keys] for start in starts], axis=1)[:, -num_queries:]


def ring_bias(table: Float[Array, "N buckets"], position: Int[Array, "B"], num_slots: int) -> Float[Array, "B N 1 K"]:
    """Returns the bias of one query per row for a ring of the previous K tokens.

    The token at position p of a document has slot p modulo K of the ring. The slots before the query's own slot hold
    the tokens at distances 1, 2, .... Its own slot is written after the attention, so it still holds the token at
    distance K.

    Args:
        table: bias of each bucket.
        position: slot of each row's query.
        num_slots: K.
    """
    by_distance = table[:, t5_bucket(np.arange(1, num_slots + 1))]
    distances = (position[:, None] - 1 - jnp.arange(num_slots)[None]) % num_slots
    return jnp.moveaxis(by_distance[:, distances], 0, 1)[:, :, None]


def causal_mask(num_queries: int, num_keys: int, window: int | None) -> Bool[np.ndarray, "Q K"]:
    """Returns True where a query sees a key: at distances 1 to `window`, or at all distances from 1 without a window.

    A query does not see its own position (official code); the residual stream carries that token.
    """
    queries = num_keys - num_queries + np.arange(num_queries)
    distances = queries[:, None] - np.arange(num_keys)[None, :]
    return (distances >= 1) & (distances <= (num_keys if window is None else window))
