"""Measures both attention kernels on a TPU and says which one to use: `python -m experiments.tpu.bench_attention`.

First checks that their outputs and gradients are equal. Then measures the forward pass, and forward and backward pass
together, for the windows of Table 1. Without a TPU it exits with code 2; `--interpret` runs small sizes anywhere,
without a verdict about speed, and `--compile v4:2x2x1` compiles for a TPU that is not attached and prints the traffic
of its memory.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from block_recurrent.aot.hlo import parse_program
from block_recurrent.aot.topology import Topology
from block_recurrent.aot.work import program_work, total_hbm_bytes
from block_recurrent.model.ops.attention import KeyValues, attend, unit_length
from block_recurrent.model.ops.blocks import half_blocks, merge_blocks, split_blocks, with_previous_block
from block_recurrent.model.ops.fused_attention import fused_attention
from block_recurrent.model.ops.positions import NUM_BUCKETS, causal_mask, relative_bias

ROUNDS = 5  # of each program, alternating; their median counts
CALLS = 10  # of a program in one round
BOUND = 0.03  # largest difference in bfloat16, relative to the largest entry


@dataclasses.dataclass(frozen=True)
class Size:
    """Shape of an attention.

    Attributes:
        name: rows of Table 1.
        length: tokens of a segment.
        window: W.
        rows: rows of the batch.
        heads: attention heads.
        dim: width of a head.
    """

    name: str
    length: int
    window: int
    rows: int = 1
    heads: int = 8
    dim: int = 128


SIZES = (
    Size("Slide:12L, Rec", 4096, 512),
    Size("XL:512", 512, 512, rows=8),
    Size("XL:1024", 1024, 1024, rows=4),
    Size("XL:2048", 2048, 2048, rows=2),
)
SMALL = (Size("small", 32, 8, heads=2, dim=4), Size("small XL", 8, 8, rows=2, heads=2, dim=4))


def xla(queries: Any, kv: Any, cache: Any, scale: Any, table: Any) -> Any:
    """Computes what `fused_attention` computes, as the layers do with `attention_kernel = "xla"`."""
    window = cache.keys.shape[1]
    halved = window % 256 == 0
    count = window // 2 if halved else window

    def visible(sources: Any) -> KeyValues:
        pairs = [with_previous_block(split_blocks(x, window), old) for x, old in zip(*sources, strict=True)]
        return KeyValues(*map(half_blocks, pairs)) if halved else KeyValues(*pairs)

    keys = count + window
    bias, mask = relative_bias(table, count, keys), causal_mask(count, keys, window)
    blocks = split_blocks(queries, count)
    return merge_blocks(attend(blocks, (kv, cache), scale, visible=visible, bias=bias, mask=mask))


def make_inputs(size: Size) -> Any:
    """Returns random inputs in bfloat16, and a gradient of the outputs."""

    def vectors(seed: int, length: int) -> KeyValues:
        shape = (size.rows, length, size.heads, size.dim)
        keys, values = (jax.random.normal(jax.random.key(seed + i), shape) for i in range(2))
        return KeyValues(unit_length(keys).astype(jnp.bfloat16), values.astype(jnp.bfloat16))

    queries, gradient = vectors(0, size.length)
    table = jax.random.normal(jax.random.key(6), (size.heads, NUM_BUCKETS))
    return (queries, vectors(2, size.length), vectors(4, size.window), jnp.full(size.heads, 3.0), table), gradient


def programs(attention: Callable[..., Any]) -> dict[str, jax.stages.Wrapped]:
    """Returns the jitted forward pass, and the forward and backward pass together."""

    def both(inputs: Any, gradient: Any) -> Any:
        output, backward = jax.vjp(attention, *inputs)
        return output, backward(gradient)

    return {"forward": jax.jit(lambda inputs, gradient: attention(*inputs)), "forward and backward": jax.jit(both)}


def largest_difference(ours: Any, expected: Any) -> float:
    """Returns the largest difference of two trees, relative to the largest entry of each array."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True)
    arrays = [(np.asarray(one, np.float64), np.asarray(other, np.float64)) for one, other in pairs]
    return max(float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-9)) for one, other in arrays)


def seconds(program: Callable[..., Any], arguments: Any) -> float:
    result, started = None, time.perf_counter()
    for _ in range(CALLS):
        result = program(*arguments)
    jax.block_until_ready(result)
    return (time.perf_counter() - started) / CALLS


def measure(size: Size) -> dict[str, Any]:
    """Returns the largest difference of the kernels and the median seconds of each pass of each kernel."""
    arguments = make_inputs(size)
    by_kernel = {"xla": programs(xla), "fused": programs(fused_attention)}
    results = {name: passes["forward and backward"](*arguments) for name, passes in by_kernel.items()}
    measured: dict[str, Any] = {
        "size": dataclasses.asdict(size),
        "difference": largest_difference(results["fused"], results["xla"]),
    }
    for part in ("forward", "forward and backward"):
        for passes in by_kernel.values():
            jax.block_until_ready(passes[part](*arguments))
        rounds = [{name: seconds(passes[part], arguments) for name, passes in by_kernel.items()} for _ in range(ROUNDS)]
        measured[part] = {name: statistics.median(times[name] for times in rounds) for name in by_kernel}
    return measured


def traffic(size: Size, topology: Topology) -> dict[str, float]:
    """Returns the bytes that each kernel's forward and backward pass reads from and writes to a chip's HBM."""
    device = SingleDeviceSharding(topology.devices()[0])
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), jax.eval_shape(lambda: make_inputs(size))
    )
    moved = {}
    for name, attention in (("xla", xla), ("fused", fused_attention)):
        lowered: Any = programs(attention)["forward and backward"].lower(*arguments)
        moved[name] = total_hbm_bytes(program_work(parse_program(lowered.compile().as_text())))
    return moved


def print_traffic(topology: Topology) -> None:
    """Compiles all sizes for a TPU and prints a line for each."""
    for size in SIZES:
        moved = traffic(size, topology)
        print(
            f"{size.name} on {topology.name}, forward and backward: {moved['xla'] / 1e6:,.0f} -> "
            f"{moved['fused'] / 1e6:,.0f} MB through HBM, {moved['fused'] / moved['xla']:.3f} of it",
            flush=True,
        )


def line(measured: dict[str, Any]) -> str:
    parts = [
        f"{part} {1e3 * measured[part]['xla']:.3f} -> {1e3 * measured[part]['fused']:.3f} ms"
        for part in ("forward", "forward and backward")
    ]
    return f"{measured['size']['name']}: difference {measured['difference']:.1e}; xla -> fused: {'; '.join(parts)}"


def verdict(results: list[dict[str, Any]]) -> str:
    """Returns which kernel to use, from the forward and backward pass of each size."""
    wrong = [found["size"]["name"] for found in results if not found["difference"] <= BOUND]
    if wrong:
        return f"WRONG: the kernels differ by more than {BOUND} for {', '.join(wrong)}; use attention_kernel = 'xla'"
    times = [found["forward and backward"] for found in results]
    faster = [f"{time['xla'] / time['fused']:.2f}" for time in times]
    better = all(time["fused"] < time["xla"] for time in times)
    choice = "use attention_kernel = 'fused'" if better else "choose by the sizes that you train"
    return f"equal within {BOUND}; fused is {', '.join(faster)} times as fast as xla: {choice}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--interpret", action="store_true", help="small sizes on any platform: checks equality only")
    parser.add_argument("--compile", metavar="CHIP:SHAPE", help="print the HBM traffic on this slice; needs libtpu")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    if options.compile:
        return print_traffic(Topology.parse(options.compile))
    if not options.interpret and jax.default_backend() != "tpu":
        print(f"bench_attention: no TPU here (jax uses {jax.default_backend()}); --interpret checks equality only")
        sys.exit(2)
    results = []
    for size in SMALL if options.interpret else SIZES:
        results.append(measure(size))
        print(line(results[-1]), flush=True)
    text = verdict(results)
    print("equality only, times of interpret mode mean nothing" if options.interpret else text)
    if options.json:
        device = jax.devices()[0].device_kind
        options.json.write_text(json.dumps({"device": device, "results": results, "verdict": text}, indent=1) + "\n")
    sys.exit(1 if text.startswith("WRONG") else 0)


if __name__ == "__main__":
    main()
