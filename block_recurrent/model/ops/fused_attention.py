"""Self-attention over windows in one kernel, which writes neither logits nor weights to memory.

The Pallas kernels are compiled for TPUs. On other platforms they run as ordinary programs of jax (interpret mode),
which is slow and serves tests. Rows and heads may be sharded: every device runs the kernel on its own ones.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from block_recurrent.model.ops.attention import KeyValues
from block_recurrent.model.ops.attention_tiles import Tiles
from block_recurrent.model.ops.fused_backward import FromOutputs, backward
from block_recurrent.model.ops.fused_forward import Inputs, forward
from block_recurrent.typing import CacheHeads, TokenHeads

LANES = 128  # a TPU's kernel needs windows and head dimensions that are multiples of this


def fused_attention(
    queries: TokenHeads,
    kv: KeyValues,
    cache: KeyValues,
    scale: Float[Array, "N"],
    table: Float[Array, "N buckets"],
    *,
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
        tile: tokens of a tile; it divides W. None chooses for a TPU.

    Returns:
        The outputs, in the dtype of the queries.
    """
    window = cache.keys.shape[1]
    tiles = Tiles.of(window) if tile is None else Tiles(window, tile)
    scale = jnp.abs(scale)
    scaled = (queries * jnp.broadcast_to(scale[:, None], queries.shape)).astype(queries.dtype)
    return _attention(tiles, scaled, kv, cache, table * jnp.broadcast_to(scale[:, None], table.shape))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
    tiles: Tiles, queries: TokenHeads, kv: KeyValues, cache: KeyValues, bias: Float[Array, "N buckets"]
) -> TokenHeads:
    return _attention_forward(tiles, queries, kv, cache, bias)[0]


def _attention_forward(
    tiles: Tiles, queries: TokenHeads, kv: KeyValues, cache: KeyValues, bias: Float[Array, "N buckets"]
) -> Any:
    output, log_total = _forward(tiles)(bias, queries, *kv, *cache)
    return output, (bias, queries, kv, cache, output, log_total)


def _attention_backward(tiles: Tiles, residuals: Any, gradient: TokenHeads) -> Any:
    bias, queries, kv, cache, output, log_total = residuals
    mean = jnp.sum(gradient.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)
    mean = jnp.swapaxes(mean, 1, 2)[:, :, None]
    by_bias, by_query, *others = _backward(tiles)(bias, queries, *kv, *cache, gradient, log_total, mean)
    return by_query, KeyValues(*others[:2]), KeyValues(*others[2:]), jnp.sum(by_bias, axis=(0, 3))


_attention.defvjp(_attention_forward, _attention_backward)


@functools.cache
def _forward(tiles: Tiles) -> Callable[..., Any]:
    """Returns the forward kernel for arrays with heads and channels as two axes."""

    def run(bias: Any, queries: Any, *kv: Any) -> Any:
        output, log_total = _on_platform(functools.partial(forward, tiles), _inputs(bias, queries, kv))
        return output.reshape(queries.shape), log_total

    return _by_rows_and_heads(run, "n c, b t n h, b t n h, b t n h, b w n h, b w n h -> b t n h, b n o t")


@functools.cache
def _backward(tiles: Tiles) -> Callable[..., Any]:
    """Returns the backward kernel for arrays with heads and channels as two axes."""

    def run(bias: Any, queries: Any, *others: Any) -> Any:
        *kv, gradient, log_total, mean = others
        outputs = FromOutputs(_merge_heads(gradient), log_total, mean)
        found = _on_platform(functools.partial(backward, tiles), _inputs(bias, queries, kv), outputs)
        flat = (found.queries, *found.tokens, *found.cache)
        return found.bias, *(x.reshape(*x.shape[:2], *queries.shape[2:]) for x in flat)

    return _by_rows_and_heads(
        run,
        "n c, b t n h, b t n h, b t n h, b w n h, b w n h, b t n h, b n o t, b n o t "
        "-> b n c q, b t n h, b t n h, b t n h, b w n h, b w n h",
    )


def _inputs(bias: Any, queries: Any, kv: Any) -> Inputs:
    keys, values, cached_keys, cached_values = map(_merge_heads, kv)
    return Inputs(bias, _merge_heads(queries), KeyValues(keys, values), KeyValues(cached_keys, cached_values))


def _merge_heads(x: Float[Array, "B T N H"]) -> Float[Array, "B T NH"]:
    return x.reshape(*x.shape[:2], -1)


def _on_platform(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a kernel: compiled where the program is lowered for a TPU, which need not be attached, else interpreted."""
    compiled, interpreted = (functools.partial(kernel, interpret=interpret) for interpret in (False, True))
    return jax.lax.platform_dependent(*arguments, tpu=compiled, default=interpreted)


def _by_rows_and_heads(function: Callable[..., Any], rule: str) -> Callable[..., Any]:
    """Lets every device run a function on its rows and heads.

    Args:
        function: of arrays, returns arrays; rows and heads are independent of each other.
        rule: axes of arguments and results: b are rows, n heads; the others are not divided.
    """
    specs = [
        [PartitionSpec(*(axis if axis in ("b", "n") else None for axis in axes.split())) for axes in side.split(",")]
        for side in rule.split("->")
    ]

    def partition(mesh: Any, arguments: Any, results: Any) -> Any:
        del results
        rows, _, heads, _ = (*arguments[1].sharding.spec, None, None, None, None)[:4]
        axes = {"b": rows, "n": heads, None: None}
        inputs, outputs = (
            tuple(NamedSharding(mesh, PartitionSpec(*(axes[axis] for axis in spec))) for spec in side) for side in specs
        )
        return mesh, function, outputs, inputs

    divided = custom_partitioning(function)
    others = tuple(sorted({axis for axis in rule if axis.isalpha()} - {"b", "n"}))
    divided.def_partition(partition, sharding_rule=rule, need_replication_factors=others)
    return divided
