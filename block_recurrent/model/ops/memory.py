"""External memory: keys and values of earlier segments; each query retrieves a few of them and attends to these.

The order within a layer is that of Memorizing Transformers (arXiv:2203.08913) in the official code: a segment's queries
retrieve from what earlier segments wrote, then the segment's keys and values are written. Whatever the dtype of the
memory, scores and selection are float32: in bfloat16, ties are common and the official softmax can overflow.

No gradient flows through retrieval or into the memory: retrieved keys and values are constants.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from block_recurrent.typing import MemoryHeads, TokenHeads

Retrieval = Literal["bucketed", "exact", "approximate"]

# -1e6 rounded to bfloat16, in every dtype (official code); added to the score of a slot without a key.
EMPTY_SCORE = -999424.0
_SHARPNESS = 1e6
# Scores of a row that are computed at the same time: 134 MB. With 8 heads and 65,536 slots that is 64 queries.
_SCORES_AT_ONCE = 2**25


class Memory(NamedTuple):
    """The external memory of one layer, a ring of M slots for each row and head.

    Attributes:
        keys: (B, N, M, H) keys of unit length; zeros in slots that no token has reached.
        values: (B, N, M, H) values.
        written: (B,) int32, number of tokens written since the document's start. The next token's slot is this number
            modulo M, so documents must be shorter than 2 ** 31 tokens.
    """

    keys: MemoryHeads
    values: MemoryHeads
    written: Int[Array, "B"]


class Retrieved(NamedTuple):
    """Keys and values that each query retrieved.

    Attributes:
        keys: (B, N, Q, K, H) in the dtype of the memory.
        values: (B, N, Q, K, H).
        scores: (B, N, Q, K) float32, products of the query and the slot's key; near `EMPTY_SCORE` without a key.
    """

    keys: Float[Array, "B N Q K H"]
    values: Float[Array, "B N Q K H"]
    scores: Float[Array, "B N Q K"]


def empty_memory(batch_size: int, num_heads: int, size: int, head_dim: int, dtype: str) -> Memory:
    """Returns the memory at the start of a document."""
    shape = (batch_size, num_heads, size, head_dim)
    # Two arrays, because a buffer shared by keys and values could not be donated.
    return Memory(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(batch_size, jnp.int32))


def write(memory: Memory, keys: TokenHeads, values: TokenHeads) -> Memory:
    """Writes a segment into the memory; the oldest tokens are overwritten first.

    Args:
        memory: the memory before the segment.
        keys: keys of the segment's tokens, at most M.
        values: their values.
    """
    slots = (memory.written[:, None] + jnp.arange(keys.shape[1])[None]) % memory.keys.shape[2]

    def put(ring: MemoryHeads, tokens: TokenHeads) -> MemoryHeads:
        new = jax.lax.stop_gradient(jnp.swapaxes(tokens, 1, 2)).astype(ring.dtype)
        return jax.vmap(lambda ring, slots, new: ring.at[:, slots].set(new))(jax.lax.stop_gradient(ring), slots, new)

    return Memory(put(memory.keys, keys), put(memory.values, values), memory.written + keys.shape[1])


def retrieve(queries: TokenHeads, memory: Memory, neighbors: int, method: Retrieval) -> Retrieved:
    """Retrieves `neighbors` = K entries for each query.

    A slot whose key's features sum to exactly 0 counts as empty (official code): it loses against every other slot, and
    what it holds, zeros, takes part in the attention with logit 0.

    Rows and heads are processed together, so that a mesh can divide both. Queries are divided into chunks if there are
    too many scores; each chunk reads the whole memory.

    Args:
        queries: of unit length; (B, Q, N, H).
        memory: the memory before the segment.
        neighbors: K, a divisor of M with `bucketed`.
        method: `bucketed` divides the slots into K buckets, slot i into bucket i modulo K, and returns the best slot of
            each: the softmax over the bucket of 1e6 times the score, as in the official code, so that equal scores are
            averaged, keys and values alike, and scores closer than about 1.5e-5 are mixed. `exact` returns the K slots
            with the largest scores, the largest first, and of equal ones the first; `approximate` those that
            `jax.lax.approx_max_k` finds.
    """
    queries, memory = jax.lax.stop_gradient((jnp.swapaxes(queries, 1, 2), memory))
    length, chunk = queries.shape[2], _chunk(queries.shape[1] * memory.keys.shape[2], queries.shape[2])
    select = _best_of_buckets if method == "bucketed" else _largest

    def search(chunk: Float[Array, "B N Q H"]) -> Retrieved:
        return select(_scores(chunk, memory.keys), memory, neighbors, method)

    if chunk == length:
        return search(queries)
    batch, heads, _, dim = queries.shape
    chunks = jnp.moveaxis(queries.reshape(batch, heads, length // chunk, chunk, dim), 2, 0)
    found = jax.lax.map(search, chunks)
    return Retrieved(*(jnp.moveaxis(x, 0, 2).reshape(batch, heads, length, *x.shape[4:]) for x in found))


def attend_to_memory(queries: TokenHeads, retrieved: Retrieved, scale: Float[Array, "N"]) -> TokenHeads:
    """Returns softmax(|scale| * (queries . keys)) values over the K entries that each query retrieved.

    There is no mask, no position bias and no additional logit; `scale` is that of the layer's attention to tokens.
    """
    logits = jnp.einsum("bqnh,bnqkh->bnqk", queries, retrieved.keys, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * jnp.abs(scale)[None, :, None, None], axis=-1)
    return jnp.einsum("bnqk,bnqkh->bqnh", weights.astype(retrieved.values.dtype), retrieved.values)


def mix_with_memory(local: TokenHeads, external: TokenHeads, bias: Float[Array, "N"]) -> TokenHeads:
    """Returns (1 - g) * local + g * external with g = sigmoid(bias) per head, in the dtype of `local`."""
    gate = jax.nn.sigmoid(bias)[None, None, :, None]
    return ((1 - gate) * local + gate * external).astype(local.dtype)


def _chunk(scores_per_query: int, num_queries: int) -> int:
    """Returns the largest divisor of the number of queries that `_SCORES_AT_ONCE` allows, at least 1."""
    most = max(_SCORES_AT_ONCE // scores_per_query, 1)
    return max(size for size in range(1, num_queries + 1) if num_queries % size == 0 and size <= most)


def _scores(queries: Float[Array, "B N Q H"], keys: MemoryHeads) -> Float[Array, "B N Q M"]:
    scores = jnp.einsum(
        "bnqh,bnmh->bnqm", queries, keys, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    empty = jnp.sum(keys.astype(jnp.float32), axis=-1) == 0
    return scores + jnp.where(empty, EMPTY_SCORE, 0.0)[:, :, None]


def _best_of_buckets(scores: Float[Array, "B N Q M"], memory: Memory, neighbors: int, _: Retrieval) -> Retrieved:
    by_bucket = scores.reshape(*scores.shape[:-1], -1, neighbors)
    best = jnp.max(by_bucket, axis=-2, keepdims=True)
    weights = jnp.exp(_SHARPNESS * (by_bucket - best))
    weights = weights / jnp.sum(weights, axis=-2, keepdims=True)

    def select(slots: MemoryHeads) -> Float[Array, "B N Q K H"]:
        # Full precision: a product with weights 0 and 1 is a selection.
        selected = jnp.einsum(
            "bnqrk,bnrkh->bnqkh",
            weights.astype(slots.dtype),
            slots.reshape(*slots.shape[:2], -1, neighbors, slots.shape[-1]),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
        return selected.astype(slots.dtype)

    return Retrieved(select(memory.keys), select(memory.values), best[..., 0, :])


def _largest(scores: Float[Array, "B N Q M"], memory: Memory, neighbors: int, method: Retrieval) -> Retrieved:
    search = jax.lax.approx_max_k if method == "approximate" else jax.lax.top_k
    best, slots = search(scores, neighbors)

    def select(ring: MemoryHeads) -> Float[Array, "B N Q K H"]:
        flat = jnp.take_along_axis(ring, slots.reshape(*slots.shape[:2], -1, 1), axis=2)
        return flat.reshape(*slots.shape, ring.shape[-1])

    return Retrieved(select(memory.keys), select(memory.values), best)
