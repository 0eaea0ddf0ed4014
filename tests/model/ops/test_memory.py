"""The external memory against numpy, the official code's fixture of one retrieval, and itself."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.model.ops import memory as ops
from block_recurrent.model.ops.memory import EMPTY_SCORE, Memory, Retrieved, empty_memory, retrieve, write

FIXTURE = Path(__file__).parents[2] / "fixtures" / "memory_with_recurrence.npz"
ROWS, HEADS, SLOTS, DIM, QUERIES = 2, 3, 24, 5, 8


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def random_memory(seed: int, written: int = SLOTS, dtype: Any = jnp.float32) -> tuple[jax.Array, Memory]:
    """Returns queries (B, Q, N, H) and a memory; its slots from `written` on are empty."""
    draw = np.random.default_rng(seed).normal
    keys, values = unit(draw(size=(ROWS, HEADS, SLOTS, DIM))), draw(size=(ROWS, HEADS, SLOTS, DIM)).astype(np.float32)
    keys[:, :, written:] = values[:, :, written:] = 0
    index = jnp.full(ROWS, written, jnp.int32)
    queries = jnp.asarray(unit(draw(size=(ROWS, QUERIES, HEADS, DIM))), dtype)
    return queries, Memory(jnp.asarray(keys, dtype), jnp.asarray(values, dtype), index)


def assert_retrieved(found: Retrieved, keys: Any, values: Any, atol: float = 0) -> None:
    np.testing.assert_allclose(found.keys, keys, rtol=0, atol=atol)
    np.testing.assert_allclose(found.values, values, rtol=0, atol=atol)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("written", [SLOTS, 3])
def test_exact_retrieval_is_that_of_brute_force(seed, written):
    queries, memory = random_memory(seed, written)
    found = retrieve(queries, memory, 5, "exact")
    for row, query, head in np.ndindex(ROWS, QUERIES, HEADS):
        keys, values = np.asarray(memory.keys[row, head]), np.asarray(memory.values[row, head])
        scores = keys.astype(np.float64) @ np.asarray(queries[row, query, head])
        best = np.argsort(-np.where(np.arange(SLOTS) < written, scores, -np.inf), kind="stable")[:5]
        np.testing.assert_array_equal(found.keys[row, head, query], keys[best])
        np.testing.assert_array_equal(found.values[row, head, query], values[best])
        filled = found.scores[row, head, query][:written]
        np.testing.assert_allclose(filled, scores[best][:written], rtol=0, atol=1e-6)
    # Beyond the written slots: zeros, which take part in the attention with logit 0.
    assert np.all(found.scores[..., written:] == EMPTY_SCORE)
    assert not np.any(found.keys[..., written:, :])


def test_approximate_retrieval_finds_the_nearest():
    """On CPU `approx_max_k` is exact up to the order of its results."""
    queries, memory = random_memory(0)
    found, exact = (retrieve(queries, memory, 5, method) for method in ("approximate", "exact"))
    np.testing.assert_array_equal(jnp.sort(found.scores, axis=-1), jnp.sort(exact.scores, axis=-1))


def test_bucketed_retrieval_is_the_best_slot_of_each_bucket():
    queries, memory = random_memory(1)
    found = retrieve(queries, memory, 4, "bucketed")
    for bucket in range(4):
        part = Memory(memory.keys[:, :, bucket::4], memory.values[:, :, bucket::4], memory.written)
        best = retrieve(queries, part, 1, "exact")
        chosen = Retrieved(found.keys[..., bucket, :], found.values[..., bucket, :], found.scores[..., bucket])
        assert_retrieved(chosen, best.keys[..., 0, :], best.values[..., 0, :])
        np.testing.assert_allclose(chosen.scores, best.scores[..., 0], rtol=0, atol=1e-6)


def test_ties_and_empty_buckets_are_those_of_the_official_code():
    with np.load(FIXTURE) as fixture:
        names = ("query", "keys", "values", "selected_keys", "selected_values", "scores")
        expected = {name: jnp.asarray(fixture[f"aux/retrieval_{name}"]) for name in names}
    memory = Memory(expected["keys"][None, None], expected["values"][None, None], jnp.zeros(1, jnp.int32))
    found = retrieve(expected["query"][None, :, None], memory, 3, "bucketed")
    assert_retrieved(found, expected["selected_keys"][None, None], expected["selected_values"][None, None], 1e-6)
    np.testing.assert_allclose(found.scores[0, 0], expected["scores"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["bucketed", "exact"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_chunks_of_queries_find_the_same(monkeypatch, method, dtype):
    queries, memory = random_memory(2, dtype=dtype)
    whole = retrieve(queries, memory, 4, method)
    monkeypatch.setattr(ops, "_SCORES_AT_ONCE", 2 * HEADS * SLOTS)
    chunked = retrieve(queries, memory, 4, method)
    assert_retrieved(chunked, whole.keys, whole.values)
    assert whole.keys.dtype == chunked.values.dtype == dtype
    assert whole.scores.dtype == jnp.float32


def test_scores_of_bfloat16_keys_are_not_rounded():
    """In bfloat16 many scores would be equal: two tokens would be averaged, or the softmax overflow."""
    queries, memory = random_memory(3, dtype=jnp.bfloat16)
    found = jax.jit(retrieve, static_argnums=(2, 3))(queries, memory, 4, "bucketed")
    exact = np.einsum("bqnh,bnmh->bnqm", *(np.asarray(x, np.float64) for x in (queries, memory.keys)))
    best = exact.reshape(ROWS, HEADS, QUERIES, -1, 4)
    np.testing.assert_allclose(found.scores, best.max(axis=-2), rtol=0, atol=1e-6)
    slots = best.argmax(axis=-2) * 4 + np.arange(4)
    np.testing.assert_array_equal(
        np.asarray(found.values, np.float32),
        np.take_along_axis(np.asarray(memory.values, np.float32)[:, :, None], slots[..., None], axis=3),
    )


@pytest.mark.parametrize("lengths", [(8,) * 7, (4, 8, 12, 6, 24, 9)])
def test_writing_wraps_around(lengths):
    """Each slot holds the last token with its number modulo M, whatever the lengths of the segments."""
    draw = np.random.default_rng(0).normal
    tokens = jnp.asarray(draw(size=(ROWS, sum(lengths), HEADS, DIM)), jnp.float32)
    memory, first = empty_memory(ROWS, HEADS, SLOTS, DIM, "float32"), 0
    memory = memory._replace(written=jnp.array([0, 10]))  # row 1 has begun elsewhere
    for length in lengths:
        segment = tokens[:, first : first + length]
        memory, first = write(memory, segment, -segment), first + length
        for row, start in enumerate((0, 10)):
            for number in range(max(first - SLOTS, 0), first):
                kept = memory.keys[row, :, (start + number) % SLOTS]
                np.testing.assert_array_equal(kept, tokens[row, number])
    np.testing.assert_array_equal(memory.values, -memory.keys)
    np.testing.assert_array_equal(memory.written, [first, first + 10])


def test_nothing_that_is_retrieved_or_written_has_a_gradient():
    queries, memory = random_memory(4)

    def retrieved(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        found = retrieve(queries, Memory(keys, values, memory.written), 4, "bucketed")
        return jnp.sum(jnp.sin(found.keys) + found.values)

    def written(keys: jax.Array, values: jax.Array) -> jax.Array:
        after = write(memory, keys, values)
        return jnp.sum(after.keys + after.values)

    for gradient in jax.grad(retrieved, argnums=(0, 1, 2))(queries, memory.keys, memory.values):
        assert not np.any(gradient)
    for gradient in jax.grad(written, argnums=(0, 1))(queries, queries):
        assert not np.any(gradient)


def test_attention_to_the_memory_is_a_softmax_of_its_own():
    queries, memory = random_memory(5)
    found = retrieve(queries, memory, 4, "exact")
    scale = jnp.array([-2.0, 0.5, 3.0])
    output = ops.attend_to_memory(queries, found, scale)
    for row, query, head in np.ndindex(ROWS, QUERIES, HEADS):
        keys, values = (np.asarray(x[row, head, query], np.float64) for x in (found.keys, found.values))
        weights = np.exp(keys @ np.asarray(queries[row, query, head]) * abs(float(scale[head])))
        np.testing.assert_allclose(output[row, query, head], weights @ values / weights.sum(), rtol=0, atol=1e-5)
    mixed = ops.mix_with_memory(jnp.zeros_like(output), output, jnp.array([0.0, 100.0, -100.0]))
    np.testing.assert_allclose(mixed, output * jnp.array([0.5, 1, 0])[None, None, :, None], rtol=0, atol=1e-6)
