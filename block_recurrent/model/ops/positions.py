"""Which keys a query may see, and T5's relative position bias (Raffel et al. 2020, section 2.1).

Queries are aligned with the last keys: with Q queries and K keys, query i stands at key index K - Q + i. A distance is
the query's index minus the key's.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

NUM_BUCKETS = 32
MAX_DISTANCE = 128
_TILE = 128  # rows
_EXACT = NUM_BUCKETS // 2  # distances below this have a bucket each; above, buckets grow logarithmically


def t5_bucket(distance: np.ndarray) -> np.ndarray:
    """Bucket (int32, 0 to 31) of each non-negative distance; negative distances share bucket 0 with distance 0.

    Computed in float32, as the official code does: rounding decides where the logarithmic buckets begin.
    """
    distance = np.maximum(distance, 0)
    ratio = distance.astype(np.float32) / np.float32(_EXACT) + np.finfo(np.float32).eps
    scale = np.float32(np.log(MAX_DISTANCE / _EXACT))
    octaves = np.log(np.maximum(ratio, np.float32(1))) / scale
    logarithmic = _EXACT + (octaves * np.float32(NUM_BUCKETS - _EXACT)).astype(np.int32)
    return np.where(distance < _EXACT, distance, np.minimum(logarithmic, NUM_BUCKETS - 1)).astype(np.int32)


def relative_bias(table: Float[Array, "N buckets"], num_queries: int, num_keys: int) -> Float[Array, "N Q K"]:
    """Bias of each query and key by their distance.

    The matrix is constant along its diagonals, so the rows of the last queries, with more keys before them, hold those
    of all others. They are a product with zeros and ones: exact, and so is its gradient another product, where
    indexing `table` would scatter Q * K values into 32 buckets.
    """
    rows = min(num_queries, _TILE)
    starts = [rows * tile for tile in reversed(range(-(-num_queries // rows)))]
    distances = num_keys - rows + np.arange(rows)[:, None] - np.arange(starts[0] + num_keys)
    one_hot = jax.nn.one_hot(t5_bucket(distances), NUM_BUCKETS, axis=0)
    last = jnp.einsum("nb,bqk->nqk", table, one_hot, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([last[:, :, start : start + num_keys] for start in starts], axis=1)[:, -num_queries:]


def ring_bias(table: Float[Array, "N buckets"], position: Int[Array, "B"], num_slots: int) -> Float[Array, "B N 1 K"]:
    """Bias of one query per row against a ring of the K tokens before it.

    The token at position p of a document lies in slot p modulo K; `position` is the query's slot. Slots before it hold
    the tokens at distances 1, 2, ...; its own slot, which is written after the query has read, still holds the token
    at distance K.
    """
    by_distance = table[:, t5_bucket(np.arange(1, num_slots + 1))]
    distances = (position[:, None] - 1 - jnp.arange(num_slots)[None]) % num_slots
    return jnp.moveaxis(by_distance[:, distances], 0, 1)[:, :, None]


def causal_mask(num_queries: int, num_keys: int, window: int | None) -> Bool[np.ndarray, "Q K"]:
    """True where a query may see a key: at distances 1 to `window`, or at any distance from 1 on without a window.

    A query never sees its own position (official code; the residual stream carries it).
    """
    queries = num_keys - num_queries + np.arange(num_queries)
    distances = queries[:, None] - np.arange(num_keys)[None, :]
    return (distances >= 1) & (distances <= (num_keys if window is None else window))
