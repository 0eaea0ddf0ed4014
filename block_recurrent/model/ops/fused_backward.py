"""Backward pass of the fused attention: a Pallas kernel that computes the weights again."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from block_recurrent.model.ops.attention import KeyValues
from block_recurrent.model.ops.attention_tiles import Tiles, bucket_sums
from block_recurrent.model.ops.fused_forward import (
    FIRST,
    LAST,
    Inputs,
    by_kind,
    compiler_params,
    cost,
    fill_offsets,
    fill_rings,
    keep_factors,
    mask_spec,
    product,
    rings,
    slot,
)

_ROWS = (((1,), (0,)), ((), ()))  # dimension numbers of an ordinary product


class Gradients(NamedTuple):
    """Gradients of the `Inputs`, in their order.

    Attributes:
        bias: by row of the batch, head and bucket, and place of the query in its tile; the sum over rows and places is
            the gradient of `Inputs.bias`.
        queries: of the queries.
        tokens: of the keys and values of the segment.
        cache: of the keys and values of the block before.
    """

    bias: Float[Array, "B N buckets Q"]
    queries: Float[Array, "B T NH"]
    tokens: KeyValues
    cache: KeyValues


class FromOutputs(NamedTuple):
    """Inputs of the backward pass that belong to the outputs.

    Attributes:
        gradient: of the outputs.
        log_total: second result of `forward`.
        mean: sum over the channels of a query's output times its gradient.
    """

    gradient: Float[Array, "B T NH"]
    log_total: Float[Array, "B N 1 T"]
    mean: Float[Array, "B N 1 T"]


def backward(tiles: Tiles, rate: float, inputs: Inputs, outputs: FromOutputs, *, interpret: bool) -> Gradients:
    """Runs the kernel.

    The gradients of a tile of keys are complete W tokens after it. Therefore the grid has W / t further steps, which
    write the gradients of the last block.
    """
    batch, length, width = inputs.queries.shape
    heads, buckets = inputs.bias.shape
    dim, count, late = width // heads, length // tiles.size, tiles.previous

    def spec(place: Any) -> Any:
        return pl.BlockSpec((1, tiles.size, dim), lambda head, row, tile: (row, place(tile), head))

    def whole(shape: Any) -> Any:
        return pl.BlockSpec((1, 1, *shape), lambda head, row, tile: (row, head, 0, 0))

    now = spec(lambda tile: jnp.minimum(tile, count - 1))
    cache: Any = pl.BlockSpec((1, tiles.window, dim), lambda head, row, tile: (row, 0, head))
    statistic: Any = pl.BlockSpec(
        (1, 1, 1, tiles.size), lambda head, row, tile: (row, head, 0, jnp.minimum(tile, count - 1))
    )
    before, cached = spec(lambda tile: jnp.maximum(tile - late, 0)), spec(lambda tile: jnp.minimum(tile, late - 1))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs)
    by_place: Any = jax.ShapeDtypeStruct((batch, heads, buckets, tiles.size), jnp.float32)
    masks = None if inputs.kept is None else mask_spec(tiles)
    smem: Any = pl.BlockSpec(memory_space=pltpu.SMEM)
    found = pl.pallas_call(
        functools.partial(_kernel, tiles, rate, count),
        grid=(heads, batch, count + late),
        in_specs=[
            Inputs(smem, now, KeyValues(now, now), KeyValues(cache, cache), masks),
            FromOutputs(now, statistic, statistic),
        ],
        out_specs=Gradients(whole((buckets, tiles.size)), now, KeyValues(before, before), KeyValues(cached, cached)),
        out_shape=Gradients(by_place, *shapes[1:4]),
        scratch_shapes=[
            *rings(tiles, dim, inputs.queries.dtype),
            *rings(tiles, dim, jnp.float32),
            by_kind(tiles),
            by_kind(tiles),
        ],
        compiler_params=compiler_params(),
        cost_estimate=cost(tiles, inputs, products=5),
        interpret=interpret,
        name="fused_attention_backward",
    )(inputs, outputs)
    return Gradients(*found)


def _kernel(
    tiles: Tiles,
    rate: float,
    count: int,
    inputs: Any,
    outputs: Any,
    by_bias: Any,
    by_query: Any,
    by_token: Any,
    by_cached: Any,
    key_ring: Any,
    value_ring: Any,
    by_key: Any,
    by_value: Any,
    offset: Any,
    by_offset: Any,
) -> None:
    """Computes the gradients of one tile of queries of one head, and writes those of the keys that are complete."""
    # In interpret mode, `program_id` is not known inside `pl.when`.
    head, row, tile = (pl.program_id(axis) for axis in range(3))
    slots = [slot(tiles, tile, step) for step in range(tiles.previous + 1)]
    fill_offsets(tiles, inputs.bias, offset, head, (row == 0) & (tile == 0))

    @pl.when(tile == 0)
    def _() -> None:
        for store in (by_key, by_value, by_offset):
            store[...] = jnp.zeros(store.shape, store.dtype)

    @pl.when(tile < count)
    def _() -> None:
        fill_rings(tiles, tile, inputs.tokens, inputs.cache, (key_ring, value_ring))
        # The slot of the newest keys still has the gradients of the oldest keys of the tile before.
        for store in (by_key, by_value):
            store[slots[-1]] = jnp.zeros(store.shape[1:], store.dtype)
        stores = (key_ring, value_ring, by_key, by_value)
        factors = [keep_factors(tiles, rate, inputs.kept, tile, step) for step in range(tiles.previous + 1)]
        _add(tiles, slots, factors, inputs.queries, outputs, by_query, stores, offset, by_offset)

    def write_oldest(outputs: Any) -> None:
        for output, store in zip(outputs, (by_key, by_value), strict=True):
            output[0] = store[slots[0]].astype(output.dtype)  # no later query sees these keys

    pl.when(tile < tiles.previous)(lambda: write_oldest(by_cached))
    pl.when(tile >= tiles.previous)(lambda: write_oldest(by_token))

    @pl.when(tile == count + tiles.previous - 1)
    def _() -> None:
        by_bias[...] = jnp.zeros(by_bias.shape, jnp.float32)
        for bucket, row in bucket_sums(tiles, by_offset).items():
            by_bias[0, 0, bucket : bucket + 1, :] = row


def _add(
    tiles: Tiles,
    slots: Any,
    factors: Any,
    queries: Any,
    outputs: Any,
    by_query: Any,
    stores: Any,
    offset: Any,
    by_offset: Any,
) -> None:
    """Adds the gradients of one tile of queries to those of the keys, values and biases, and writes the queries'.

    With P the weights and G the gradient of the outputs O, the gradient of the logits is P (G V^T - sum(G O)).
    """
    key_ring, value_ring, by_key, by_value = stores
    gradient, asked = outputs.gradient[0], queries[0]
    log_total, mean = outputs.log_total[0, 0], outputs.mean[0, 0]
    transposed = jnp.zeros((queries.shape[2], tiles.size), jnp.float32)
    for place, kind, factor in zip(slots, tiles.kinds, factors, strict=True):
        keys, values = key_ring[place], value_ring[place]
        weights = jnp.exp(product(keys, asked, LAST) + offset[kind] - log_total)
        by_logit = weights * (product(values, gradient, LAST) * factor - mean)
        narrow = by_logit.astype(keys.dtype)
        by_value[place] += product((weights * factor).astype(values.dtype), gradient, _ROWS)
        by_key[place] += product(narrow, asked, _ROWS)
        by_offset[kind] += by_logit
        transposed += product(keys, narrow, FIRST)
    by_query[0] = transposed.T.astype(by_query.dtype)
