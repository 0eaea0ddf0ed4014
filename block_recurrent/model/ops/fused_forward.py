"""Forward pass of the fused attention: a Pallas kernel that keeps logits and weights in a TPU's VMEM."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from block_recurrent.model.ops.attention import NULL_LOGIT, KeyValues
from block_recurrent.model.ops.attention_tiles import Tiles, offsets

LAST, FIRST = (((1,), (1,)), ((), ())), (((0,), (0,)), ((), ()))  # dimension numbers: both last axes, both first axes


class Inputs(NamedTuple):
    """Inputs of the kernels; heads and their channels are one axis.

    Attributes:
        bias: bias of each head and bucket, times |scale|.
        queries: queries times |scale|.
        tokens: keys and values (B, T, NH) of the segment.
        cache: keys and values (B, W, NH) of the block before the segment.
        kept: masks of dropout, int8: 0 where a weight is removed. The keys of two blocks, in tiles, then the queries
            of one block. None without dropout.
    """

    bias: Float[Array, "N buckets"]
    queries: Float[Array, "B T NH"]
    tokens: KeyValues
    cache: KeyValues
    kept: Int[Array, "N P t W"] | None = None


def forward(
    tiles: Tiles, rate: float, inputs: Inputs, *, interpret: bool
) -> tuple[Float[Array, "B T NH"], Float[Array, "B N 1 T"]]:
    """Runs the kernel.

    Args:
        tiles: the tiles.
        rate: probability with which dropout removes a weight; only used with masks.
        inputs: see there.
        interpret: run as an ordinary program of jax, on any platform.

    Returns:
        The outputs and, for the backward pass, the logarithm of each query's softmax denominator.
    """
    batch, length, width = inputs.queries.shape
    heads, dtype = len(inputs.bias), inputs.queries.dtype
    dim, count = width // heads, length // tiles.size
    tile: Any = pl.BlockSpec((1, tiles.size, dim), lambda head, row, tile: (row, tile, head))
    cache: Any = pl.BlockSpec((1, tiles.window, dim), lambda head, row, tile: (row, 0, head))
    statistic = pl.BlockSpec((1, 1, 1, tiles.size), lambda head, row, tile: (row, head, 0, tile))
    output, log_total = pl.pallas_call(
        functools.partial(_kernel, tiles, rate),
        grid=(heads, batch, count),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            tile,
            KeyValues(tile, tile),
            KeyValues(cache, cache),
            None if inputs.kept is None else mask_spec(tiles),
        ],
        out_specs=[tile, statistic],
        out_shape=[
            jax.ShapeDtypeStruct(inputs.queries.shape, dtype),
            jax.ShapeDtypeStruct((batch, heads, 1, length), jnp.float32),
        ],
        scratch_shapes=[*rings(tiles, dim, dtype), by_kind(tiles)],
        compiler_params=compiler_params(),
        cost_estimate=cost(tiles, inputs, products=2),
        interpret=interpret,
        name="fused_attention_forward",
    )(*inputs)
    return output, log_total


def rings(tiles: Tiles, dim: int, dtype: Any) -> list[Any]:
    """Returns the shapes of two rings in VMEM, for keys and values: the tiles that the current queries see."""
    return [pltpu.VMEM((tiles.previous + 1, tiles.size, dim), dtype)] * 2


def by_kind(tiles: Tiles) -> Any:
    """Returns the shape in VMEM of a number for each pair of query and key, for each kind of tile."""
    return pltpu.VMEM((len(tiles.examples), tiles.size, tiles.size), jnp.float32)


def mask_spec(tiles: Tiles) -> Any:
    """Returns the block of `Inputs.kept` for a tile of queries: all tiles of keys of two blocks."""
    shape = (1, 2 * tiles.previous, tiles.size, tiles.size)
    return pl.BlockSpec(shape, lambda head, row, tile: (head, 0, 0, jax.lax.rem(tile, tiles.previous)))


def compiler_params() -> Any:
    """Returns the parameters of both kernels: heads may run in parallel, the tiles of a row run in order."""
    return pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary", "arbitrary"))


def cost(tiles: Tiles, inputs: Inputs, *, products: int) -> pl.CostEstimate:
    """Returns the cost of a kernel for XLA's scheduler, with a number of products of keys and queries."""
    batch, length, width = inputs.queries.shape
    pairs = batch * length * (tiles.window + tiles.size)
    arrays = jax.tree.leaves(inputs)
    return pl.CostEstimate(
        flops=2 * products * pairs * width,
        transcendentals=pairs * len(inputs.bias),
        bytes_accessed=products * sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays),
    )


def fill_rings(tiles: Tiles, tile: Any, tokens: Any, cache: Any, ring: tuple[Any, Any]) -> None:
    """Puts the keys and values of a tile into the rings, and before the first tile those of the cache."""

    @pl.when(tile == 0)
    def _() -> None:
        for old in range(tiles.previous):
            for store, source in zip(ring, cache, strict=True):
                store[old] = source[0, old * tiles.size : (old + 1) * tiles.size, :]

    for store, source in zip(ring, tokens, strict=True):
        store[slot(tiles, tile, tiles.previous)] = source[0]


def slot(tiles: Tiles, tile: Any, step: int) -> Any:
    """Returns the place in the rings of tile `step` of the keys that the current queries see."""
    return jax.lax.rem(tile + step, tiles.previous + 1)


def fill_offsets(tiles: Tiles, bias: Any, store: Any, head: Any, first: Any) -> None:
    """Computes the biases of a head at its first tile; its other tiles and rows use them again."""

    @pl.when(first)
    def _() -> None:
        for kind, step in enumerate(tiles.examples):
            store[kind] = offsets(tiles, step, bias, head)


def keep_factors(tiles: Tiles, rate: float, kept: Any, tile: Any, step: int) -> Any:
    """Returns the factors of dropout of a tile of keys, 0 or 1 / (1 - rate); the number 1 without dropout."""
    if kept is None:
        return 1.0
    return kept[0, jax.lax.rem(tile, tiles.previous) + step].astype(jnp.float32) / (1 - rate)


def product(x: Any, y: Any, dimensions: Any) -> Any:
    """Multiplies matrices; the sum is float32."""
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def _kernel(
    tiles: Tiles,
    rate: float,
    bias: Any,
    queries: Any,
    tokens: Any,
    cache: Any,
    kept: Any,
    output: Any,
    log_total: Any,
    key_ring: Any,
    value_ring: Any,
    offset: Any,
) -> None:
    """Computes the outputs of one tile of queries of one head.

    The softmax starts with its additional logit, which has weight 1 and no value. Then it adds one tile of keys after
    another; whenever a larger logit appears, the sums so far are scaled.
    """
    # In interpret mode, `program_id` is not known inside `pl.when`.
    head, row, tile = (pl.program_id(axis) for axis in range(3))
    fill_offsets(tiles, bias, offset, head, (row == 0) & (tile == 0))
    fill_rings(tiles, tile, tokens, cache, (key_ring, value_ring))
    size, dim = queries.shape[1:]
    largest, total = jnp.full((1, size), NULL_LOGIT, jnp.float32), jnp.ones((1, size), jnp.float32)
    mixed = jnp.zeros((dim, size), jnp.float32)
    for step, kind in enumerate(tiles.kinds):
        place = slot(tiles, tile, step)
        keys, values = key_ring[place], value_ring[place]
        logits = product(keys, queries[0], LAST) + offset[kind]
        larger = jnp.maximum(largest, jnp.max(logits, axis=0, keepdims=True))
        weights, shrink = jnp.exp(logits - larger), jnp.exp(largest - larger)
        total = total * shrink + jnp.sum(weights, axis=0, keepdims=True)
        weights = weights * keep_factors(tiles, rate, kept, tile, step)
        mixed = mixed * shrink + product(values, weights.astype(values.dtype), FIRST)
        largest = larger
    output[0] = (mixed / total).T.astype(output.dtype)
    log_total[0, 0] = largest + jnp.log(total)
