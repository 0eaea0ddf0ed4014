"""The fused kernel, in interpret mode, equals `attend` with the bias and the mask of a window; gradients too."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from block_recurrent.config import MeshConfig
from block_recurrent.model.ops.attention import KeyValues, attend, unit_length
from block_recurrent.model.ops.attention_tiles import Tiles, offsets
from block_recurrent.model.ops.blocks import merge_blocks, split_blocks, with_previous_block
from block_recurrent.model.ops.dropout import dropout_mask, keep_mask
from block_recurrent.model.ops.fused_attention import fused_attention
from block_recurrent.model.ops.positions import NUM_BUCKETS, causal_mask, relative_bias
from block_recurrent.parallel.sharding import make_mesh

RATE = 0.25
KEY = jax.random.key(9)


def plain_attention(queries, kv, cache, scale, table, rate=0.0):
    heads, window = len(scale), cache.keys.shape[1]
    visible = KeyValues(*(with_previous_block(split_blocks(x, window), old) for x, old in zip(kv, cache, strict=True)))
    attended = attend(
        split_blocks(queries, window),
        visible,
        scale,
        bias=relative_bias(table, window, 2 * window),
        mask=causal_mask(window, 2 * window, window),
        dropout=dropout_mask(KEY, rate, (heads, window, 2 * window)) if rate else None,
    )
    return merge_blocks(attended)


def fused(queries, kv, cache, scale, table, rate=0.0, tile=None):
    heads, window = len(scale), cache.keys.shape[1]
    kept = keep_mask(KEY, rate, (heads, window, 2 * window)) if rate else None
    return fused_attention(queries, kv, cache, scale, table, kept=kept, rate=rate, tile=tile)


def inputs(rows: int, length: int, window: int, heads: int, dim: int, dtype: Any = jnp.float32) -> Any:
    def random(seed: int, *shape: int) -> jax.Array:
        return jax.random.normal(jax.random.key(seed), shape)

    def vectors(seed: int, length: int) -> KeyValues:
        keys, values = (random(seed + i, rows, length, heads, dim) for i in range(2))
        return KeyValues(unit_length(keys).astype(dtype), values.astype(dtype))

    scale = jnp.where(jnp.arange(heads) % 2 == 0, -3.0, 1.5)  # its absolute value counts
    return vectors(0, length).keys, vectors(2, length), vectors(4, window), scale, random(6, heads, NUM_BUCKETS)


def with_gradients(function: Any, arguments: Any, **options: Any) -> Any:
    """Outputs, and the gradients of all inputs for random gradients of the outputs."""
    weights = jax.random.normal(jax.random.key(7), arguments[0].shape).astype(arguments[0].dtype)

    def both(*arguments: Any) -> Any:
        outputs, backward = jax.vjp(lambda *x: function(*x, **options), *arguments)
        return outputs, backward(weights)

    return jax.jit(both)(*arguments)


def assert_close(ours: Any, expected: Any, bound: float) -> None:
    """Compares relative to the largest entry, or to 1 if that is smaller."""
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        one, other = (np.asarray(x, np.float64) for x in (one, other))
        assert np.abs(one - other).max() <= bound * max(1, np.abs(other).max())
        assert np.any(other)


CASES = [
    pytest.param((2, 24, 12, 3, 5), 4, 0.0, id="tiles of a third of the window"),
    pytest.param((1, 12, 12, 2, 8), 6, RATE, id="one block, dropout"),
    pytest.param((1, 288, 144, 1, 4), 72, RATE, id="all buckets, dropout"),
    pytest.param((1, 144, 144, 1, 4), 3, 0.0, id="tiles in one bucket", marks=pytest.mark.slow),
    pytest.param((1, 1024, 512, 2, 16), None, 0.0, id="tiles of 256", marks=pytest.mark.slow),
    pytest.param((1, 4096, 512, 8, 128), None, 0.05, id="shape of Table 1", marks=pytest.mark.slow),
    pytest.param((1, 4096, 2048, 2, 128), None, 0.0, id="XL:2048", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("shape", "tile", "rate"), CASES)
def test_outputs_and_gradients_equal_the_plain_formulation(shape, tile, rate):
    arguments = inputs(*shape)
    expected = with_gradients(plain_attention, arguments, rate=rate)
    assert_close(with_gradients(fused, arguments, rate=rate, tile=tile), expected, 2e-5)


def test_bfloat16_is_as_close_to_float32_as_the_plain_formulation():
    """Both round weights and gradients of logits to bfloat16, whose rounding error is 2^-9, before they sum them."""
    narrow = inputs(2, 24, 12, 3, 8, jnp.bfloat16)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
    exact = with_gradients(plain_attention, wide)
    assert_close(with_gradients(fused, narrow, tile=6), exact, 0.02)
    assert_close(with_gradients(plain_attention, narrow), exact, 0.02)


@pytest.mark.parametrize("size", [3, 48])
def test_offsets_are_the_bias_of_the_visible_pairs(size):
    """Tiles of 3 tokens have all their pairs in one bucket, of different buckets at different distances."""
    tiles = Tiles(window=144, size=size)
    table = jax.random.normal(jax.random.key(0), (2, NUM_BUCKETS))
    bias = np.asarray(relative_bias(table, size, size + 144))[1]
    expected = np.where(causal_mask(size, size + 144, 144), bias, -1e6).T
    ours = [np.asarray(offsets(tiles, tiles.examples[kind], table, 1)) for kind in tiles.kinds]
    np.testing.assert_array_equal(np.concatenate(ours), expected)


@pytest.mark.parametrize(("window", "size", "kinds"), [(512, 256, 3), (2048, 256, 4), (128, 128, 2), (16, 16, 2)])
def test_tiles_with_one_bias_share_it(window, size, kinds):
    tiles = Tiles.of(window)
    assert (tiles.size, len(tiles.examples)) == (size, kinds)


def test_the_first_token_of_a_document_attends_to_zeros():
    queries, kv, cache, scale, table = inputs(1, 8, 8, 2, 4)
    empty = jax.tree.map(jnp.zeros_like, cache)
    assert not np.any(fused(queries, kv, empty, scale, table)[:, 0])


def test_no_token_sees_itself_a_later_one_or_one_before_the_window():
    queries, kv, cache, scale, table = inputs(1, 16, 8, 1, 4)

    def output(values: jax.Array, cached: jax.Array) -> jax.Array:
        return fused(queries, KeyValues(kv.keys, values), KeyValues(cache.keys, cached), scale, table, tile=4)[0, :, 0]

    of_tokens, of_cache = jax.jacobian(output, argnums=(0, 1))(kv.values, cache.values)
    seen = np.abs(np.concatenate([of_cache, of_tokens], axis=3)).sum(axis=(1, 2, 4, 5))
    np.testing.assert_array_equal(seen > 0, causal_mask(16, 24, 8))


@pytest.mark.parametrize(
    "mesh",
    [MeshConfig(data=2, fsdp=2, tensor=2), pytest.param(MeshConfig(data=8), marks=pytest.mark.slow)],
    ids=["mixed", "data"],
)
def test_rows_and_heads_of_eight_devices_equal_those_of_one(mesh):
    """Row counts or heads that the mesh does not divide stay whole: eight parts of four rows."""
    arguments, used = inputs(4, 16, 8, 2, 4), make_mesh(mesh)
    whole = with_gradients(fused, arguments, rate=RATE, tile=4)

    def on_mesh(*arguments: Any, **options: Any) -> Any:
        with jax.sharding.use_abstract_mesh(used.abstract_mesh):
            return fused(*arguments, **options)

    tokens = jax.sharding.NamedSharding(used, P(("data", "fsdp") if mesh.tensor == 2 else None))
    placed = (*jax.device_put(arguments[:3], tokens), *arguments[3:])
    assert_close(with_gradients(on_mesh, placed, rate=RATE, tile=4), whole, 1e-6)
