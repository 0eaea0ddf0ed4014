"""Self-attention over windows in one kernel, which writes neither logits nor weights to memory.

The Pallas kernels are compiled for TPUs. On other platforms they run as ordinary programs of jax (interpret mode),
which is slow and serves tests. Rows and heads may be sharded: every device runs the kernel on its own ones.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from block_recurrent.config.training import HEAD_AXIS, ROW_AXES
from block_recurrent.model.ops.attention import KeyValues
from block_recurrent.model.ops.attention_tiles import Tiles
from block_recurrent.model.ops.fused_backward import FromOutputs, backward
from block_recurrent.model.ops.fused_forward import Inputs, forward
from block_recurrent.typing import TokenHeads


def fused_attention(
    queries: TokenHeads,
    kv: KeyValues,
    cache: KeyValues,
    scale: Float[Array, "N"],
    table: Float[Array, "N buckets"],
    *,
    kept: Bool[Array, "N W K"] | None = None,
    rate: float = 0.0,
    tile: int | None = None,
) -> TokenHeads:
    """Attends to the W tokens before each query, as `attend` with `relative_bias` and `causal_mask`.

    Logits, statistics of the softmax and all sums are float32.

    Args:
        queries: vectors of unit length, as the keys; T is a multiple of W.
        kv: keys and values (B, T, N, H) of the segment.
        cache: keys and values (B, W, N, H) of the block before the segment.
        scale: factor per head; its absolute value multiplies the logits, including the bias (official code).
        table: bias of each bucket of distances (`t5_bucket`).
        kept: False where dropout removes the weight of a query of a block for one of the K = 2 W keys of the previous
            block and its own; the same for all rows and blocks (official code). None switches dropout off.
        rate: probability of removal, from 0 to below 1; the other weights are divided by 1 - rate.
        tile: tokens of a tile; it divides W. None chooses for a TPU.

    Returns:
        The outputs, in the dtype of the queries.
    """
    window = cache.keys.shape[1]
    tiles = Tiles.of(window) if tile is None else Tiles(window, tile)
    scale = jnp.abs(scale)
    scaled = (queries * jnp.broadcast_to(scale[:, None], queries.shape)).astype(queries.dtype)
    bias = table * jnp.broadcast_to(scale[:, None], table.shape)
    return _attention(tiles, rate, scaled, kv, cache, bias, None if kept is None else _by_tile(tiles, kept))


def _by_tile(tiles: Tiles, kept: Bool[Array, "N W K"]) -> Int[Array, "N P t W"]:
    """Returns the mask as the kernels read it: one byte each, with tiles of keys before the queries."""
    return jnp.swapaxes(kept, 1, 2).astype(jnp.int8).reshape(len(kept), -1, tiles.size, tiles.window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(
    tiles: Tiles,
    rate: float,
    queries: TokenHeads,
    kv: KeyValues,
    cache: KeyValues,
    bias: Float[Array, "N buckets"],
    kept: Any,
) -> TokenHeads:
    return _attention_forward(tiles, rate, queries, kv, cache, bias, kept)[0]


def _attention_forward(
    tiles: Tiles, rate: float, queries: TokenHeads, kv: KeyValues, cache: KeyValues, bias: Any, kept: Any
) -> Any:
    masks = () if kept is None else (kept,)
    output, log_total = _forward(tiles, rate, bool(masks))(bias, queries, *kv, *cache, *masks)
    return output, (bias, queries, kv, cache, masks, output, log_total)


def _attention_backward(tiles: Tiles, rate: float, residuals: Any, gradient: TokenHeads) -> Any:
    bias, queries, kv, cache, masks, output, log_total = residuals
    mean = jnp.sum(gradient.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)
    from_outputs = FromOutputs(gradient, log_total, jnp.swapaxes(mean, 1, 2)[:, :, None])
    found = _backward(tiles, rate, bool(masks))(bias, queries, *kv, *cache, *from_outputs, *masks)
    by_bias, by_query, *others = found
    # Masks of dropout are drawn, not learned.
    return by_query, KeyValues(*others[:2]), KeyValues(*others[2:]), jnp.sum(by_bias, axis=(0, 3)), None


_attention.defvjp(_attention_forward, _attention_backward)

_INPUT_AXES = "n c, b t n h, b t n h, b t n h, b w n h, b w n h"
_MASK_AXES = ", n p k w"


@functools.cache
def _forward(tiles: Tiles, rate: float, masked: bool) -> Callable[..., Any]:
    """Returns the forward kernel for arrays with heads and channels as two axes."""

    def run(bias: Any, queries: Any, *others: Any) -> Any:
        inputs = _inputs(bias, queries, others[:4], others[4:])
        output, log_total = _on_platform(functools.partial(forward, tiles, rate), inputs)
        return output.reshape(queries.shape), log_total

    return _by_rows_and_heads(run, f"{_INPUT_AXES}{_MASK_AXES * masked} -> b t n h, b n o t")


@functools.cache
def _backward(tiles: Tiles, rate: float, masked: bool) -> Callable[..., Any]:
    """Returns the backward kernel for arrays with heads and channels as two axes."""

    def run(bias: Any, queries: Any, *others: Any) -> Any:
        inputs = _inputs(bias, queries, others[:4], others[7:])
        outputs = FromOutputs(_merge_heads(others[4]), *others[5:7])
        found = _on_platform(functools.partial(backward, tiles, rate), inputs, outputs)
        flat = (found.queries, *found.tokens, *found.cache)
        return found.bias, *(x.reshape(*x.shape[:2], *queries.shape[2:]) for x in flat)

    axes = f"{_INPUT_AXES}, b t n h, b n o t, b n o t{_MASK_AXES * masked}"
    return _by_rows_and_heads(run, f"{axes} -> b n c q, b t n h, b t n h, b t n h, b w n h, b w n h")


def _inputs(bias: Any, queries: Any, kv: Any, masks: Any) -> Inputs:
    keys, values, cached_keys, cached_values = map(_merge_heads, kv)
    tokens, cache = KeyValues(keys, values), KeyValues(cached_keys, cached_values)
    return Inputs(bias, _merge_heads(queries), tokens, cache, *masks)


def _merge_heads(x: Float[Array, "B T N H"]) -> Float[Array, "B T NH"]:
    return x.reshape(*x.shape[:2], -1)


def _on_platform(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a kernel: compiled where the program is lowered for a TPU, which need not be attached, else interpreted."""
    compiled, interpreted = (functools.partial(kernel, interpret=interpret) for interpret in (False, True))
    return jax.lax.platform_dependent(*arguments, tpu=compiled, default=interpreted)


def _by_rows_and_heads(function: Callable[..., Any], rule: str) -> Callable[..., Any]:
    """Lets every device of the mesh in use run a function on its rows and heads.

    Without a mesh (`jax.sharding.get_abstract_mesh`), with one device, or inside a `shard_map` over all axes, the
    function runs on the arrays as they are.

    Args:
        function: of arrays, returns arrays; rows and heads are independent of each other.
        rule: axes of arguments and results: b are rows, n heads; the others are not divided.
    """
    arguments, results = ([axes.split() for axes in side.split(",")] for side in rule.split("->"))

    def divided(*arrays: Array) -> Any:
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1 or set(mesh.manual_axes) == set(mesh.axis_names):
            return function(*arrays)
        sizes = {
            axis: size
            for axes, x in zip(arguments, arrays, strict=True)
            for axis, size in zip(axes, x.shape, strict=True)
        }
        names = {"b": _if_divides(mesh, ROW_AXES, sizes["b"]), "n": _if_divides(mesh, (HEAD_AXIS,), sizes["n"])}
        ins, outs = (tuple(PartitionSpec(*map(names.get, axes)) for axes in side) for side in (arguments, results))
        # The kernels' results do not say along which axes they differ (`check_vma`).
        return jax.shard_map(function, in_specs=ins, out_specs=outs, check_vma=False)(*arrays)

    return divided


def _if_divides(mesh: Any, axes: tuple[str, ...], size: int) -> tuple[str, ...] | None:
    return axes if size % math.prod(mesh.shape[axis] for axis in axes) == 0 else None
