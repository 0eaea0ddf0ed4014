"""Compares the estimate of `compile` with published times of TPUs: `python -m experiments.tpu.published_times`.

Compiles programs like those that others have timed, needs libtpu and no TPU, and writes `published_times.md`.

* Attention with a bias and a causal mask, written with plain operations, on one v4 chip: apple/axlearn,
  `axlearn/common/flash_attention/tpu_attention_benchmark.py` at 0728da1 (2 rows of 2048 tokens, bfloat16; `ref_fwd` and
  `ref_bwd`, which is the gradient with respect to queries, keys and values, forward pass included).
* A dense transformer of 22 billion parameters on 64 v4 chips, fsdp = 64, each layer recomputed: MaxText,
  `MaxText/configs/v4` at 30cd40a (13 rows of 2048 tokens a chip, 156 TFLOP/s a chip). 13 rows of this program do not
  fit a chip; it has 12, and its published time is that of the same rate.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from block_recurrent.aot.collectives import collectives
from block_recurrent.aot.hlo import parse_program
from block_recurrent.aot.roofline import Estimate, estimate_step
from block_recurrent.aot.topology import Topology
from block_recurrent.aot.work import program_work
from block_recurrent.files import write_whole

OUT = Path(__file__).with_suffix(".md")
FACTOR = 1.5  # an estimate within this factor of the published time is believed
HEADS = {"1.2b": (32, 64), "12.6b": (40, 128), "29.6b": (56, 128), "65.2b": (72, 128), "134b": (88, 128)}
# Milliseconds of `ref_fwd` and `ref_bwd`.
ATTENTION = {"1.2b": (3.0, 7.5), "12.6b": (4.3, 9.8), "29.6b": (6.0, 13.5), "65.2b": (7.7, 17.6), "134b": (9.4, 21.6)}


@dataclasses.dataclass(frozen=True)
class Dense:
    """A dense transformer as MaxText's of 2023: relu, rotary positions, one table in and one out."""

    layers: int = 48
    dim: int = 6144
    heads: int = 24
    head_dim: int = 256
    mlp_dim: int = 24576
    vocab: int = 32_000
    tokens: int = 2048
    rows: int = 12
    chips: int = 64
    flops_rate: float = 156e12  # published, a chip


def attention(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns causal attention (B, T, N, H) with logits in the dtype of the inputs and a softmax in float32."""
    logits = jnp.einsum("btnh,bsnh->bnts", q * q.shape[-1] ** -0.5, k)
    causal = jnp.tril(jnp.ones(logits.shape[-2:], bool))
    logits = jnp.where(causal, logits, jnp.asarray(-1e15, logits.dtype)) + bias
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(logits.dtype)
    return jnp.einsum("bnts,bsnh->btnh", weights, v)


def estimate(lowered: Any, topology: Topology, num_chips: int, model_flops: float = 0.0) -> Estimate:
    """Compiles a program and estimates its time."""
    program = parse_program(lowered.compile().as_text())
    return estimate_step(
        topology.chip,
        model_flops=model_flops,
        work=program_work(program),
        traffic=collectives(program),
        num_chips=num_chips,
    )


def attention_rows() -> Iterator[tuple[str, float, Estimate]]:
    """Returns the name, published seconds and estimate of each size of attention."""
    topology = Topology.parse("v4:2x2x1")
    device = SingleDeviceSharding(topology.devices()[0])
    for name, (heads, dim) in HEADS.items():
        tokens = jax.ShapeDtypeStruct((2, 2048, heads, dim), jnp.bfloat16, sharding=device)
        bias = jax.ShapeDtypeStruct((2, heads, 2048, 2048), jnp.bfloat16, sharding=device)
        loss: Callable[..., Any] = lambda *arguments: attention(*arguments).mean()  # noqa: E731
        passes = {"forward": attention, "gradient": jax.grad(loss, argnums=(0, 1, 2))}
        for (kind, function), milliseconds in zip(passes.items(), ATTENTION[name], strict=True):
            with jax.default_matmul_precision("bfloat16"):
                lowered = jax.jit(function).lower(tokens, tokens, tokens, bias)
            yield f"axlearn attention, {name}, {kind}", milliseconds / 1e3, estimate(lowered, topology, 1)


def dense_row(model: Dense) -> tuple[str, float, Estimate]:
    """Returns the name, published seconds and estimate of a training step of a dense transformer with Adam."""
    topology = Topology.parse("v4:4x4x4")
    mesh = Mesh(topology.devices(), ("fsdp",))
    shapes = {
        "qkv": (model.layers, model.dim, 3, model.heads * model.head_dim),
        "out": (model.layers, model.heads * model.head_dim, model.dim),
        "up": (model.layers, model.dim, model.mlp_dim),
        "down": (model.layers, model.mlp_dim, model.dim),
        "table": (model.vocab, model.dim),
        "logits": (model.dim, model.vocab),
    }
    on_rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    stacked = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    params = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=stacked if shape[0] == model.layers else on_rows)
        for name, shape in shapes.items()
    }
    tokens = jax.ShapeDtypeStruct((model.rows * model.chips, model.tokens), jnp.int32, sharding=on_rows)
    step = jax.jit(functools.partial(dense_step, model, mesh), donate_argnums=(0, 1))
    lowered = step.lower(params, (params, params), tokens)
    weights = sum(math.prod(shape) for shape in shapes.values())
    attention_flops = 2 * 2 * model.tokens * model.heads * model.head_dim * model.layers
    per_token = 3 * (2 * (weights - model.vocab * model.dim) + attention_flops)
    flops = per_token * model.rows * model.tokens
    name = f"MaxText 22B, step, {model.rows} rows a chip"
    return name, flops / model.flops_rate, estimate(lowered, topology, model.chips, flops)


def dense_step(model: Dense, mesh: Mesh, params: Any, moments: Any, tokens: jax.Array) -> tuple[Any, Any]:
    """Takes one step of Adam on the mean loss."""
    gradients = jax.grad(functools.partial(dense_loss, model, mesh))(params, tokens)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradients)
    second = jax.tree.map(lambda m, g: 0.95 * m + 0.05 * g * g, moments[1], gradients)
    new = jax.tree.map(lambda p, m, v: p - 1e-4 * (m / (jnp.sqrt(v) + 1e-8) + 0.1 * p), params, first, second)
    return new, (first, second)


def dense_loss(model: Dense, mesh: Mesh, params: Any, tokens: jax.Array) -> jax.Array:
    """Returns the mean loss of next-token prediction."""
    rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    x = jax.lax.with_sharding_constraint(narrow["table"][tokens], rows)
    layers = {name: narrow[name] for name in ("qkv", "out", "up", "down")}

    @jax.checkpoint
    def layer(x: jax.Array, kernels: Any) -> tuple[jax.Array, None]:
        whole = jax.lax.with_sharding_constraint(kernels, NamedSharding(mesh, PartitionSpec()))
        heads = jnp.einsum("btd,dkn->kbtn", normalised(x), whole["qkv"])
        q, k, v = heads.reshape(3, *x.shape[:2], model.heads, model.head_dim)
        mixed = attention(rotated(q), rotated(k), v, jnp.zeros((), x.dtype))
        x = x + mixed.reshape(*x.shape[:2], -1) @ whole["out"]
        # Their gradients are computed before the backward pass of the attention; else the program does not fit.
        x, up, down = jax.lax.optimization_barrier((x, whole["up"], whole["down"]))
        x = x + jax.nn.relu(normalised(x) @ up) @ down
        return jax.lax.with_sharding_constraint(x, rows), None

    x, _ = jax.lax.scan(layer, x, layers)
    logits = (normalised(x) @ narrow["logits"]).astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, jnp.roll(tokens, -1, axis=1)[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)


def normalised(x: jax.Array) -> jax.Array:
    """Returns x over its root mean square."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + 1e-6)).astype(x.dtype)


def rotated(x: jax.Array) -> jax.Array:
    """Applies rotary positions to (B, T, N, H)."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * 10_000.0 ** (-jnp.arange(half) / half)
    cos, sin = (f(angles)[None, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def markdown(rows: list[tuple[str, float, Estimate]]) -> str:
    """Returns the table, with the verdict of each row."""
    lines = ["# Estimates and published times", "", _ABOUT, "", f"| {' | '.join(_HEAD)} |", "|" + "---|" * len(_HEAD)]
    for name, published, one in rows:
        ratio = one.seconds / published
        believed = "yes" if 1 / FACTOR <= ratio <= FACTOR else "NO"
        times = (one.compute, one.memory, one.communication)
        parts = ", ".join(f"{seconds * 1e3:,.2f}" for seconds in times)
        cells = (
            name,
            f"{published * 1e3:,.1f}",
            f"{one.seconds * 1e3:,.1f}",
            f"{parts} ({one.bound})",
            f"{ratio:.2f}",
            believed,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_HEAD = (
    "program on v4", "published ms", "estimated ms", "arithmetic, memory, collectives ms (the longest)",
    "estimated / published", f"within a factor of {FACTOR}",
)  # fmt: skip
_ABOUT = (
    "`python -m experiments.tpu.published_times` compiles programs like those that others have timed on TPU v4 and "
    "estimates their time as `compile` does. Sources and sizes are in the script. Nothing was run here."
)


def main() -> None:
    """Compiles all programs and writes the table after each one."""
    rows: list[tuple[str, float, Estimate]] = []
    for row in itertools.chain(attention_rows(), (dense_row(model) for model in (Dense(),))):
        rows.append(row)
        write_whole(OUT, markdown(rows))
        print(OUT.read_text().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
