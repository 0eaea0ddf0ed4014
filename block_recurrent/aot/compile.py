"""Compiles a run's steps for a slice: memory, an estimate of step time and the cost of compiling."""

import dataclasses
import hashlib
import importlib.metadata
import re
import resource
import time
from typing import Any

from jax.sharding import Mesh

from block_recurrent.aot.collectives import Traffic, collectives
from block_recurrent.aot.hlo import parse_program
from block_recurrent.aot.kernel_blocks import without_locations
from block_recurrent.aot.roofline import Estimate, estimate_step
from block_recurrent.aot.steps import DECODE_ROWS, DECODE_TOKENS, lower_step
from block_recurrent.aot.summary import bytes_per_device
from block_recurrent.aot.topology import Topology
from block_recurrent.aot.work import Work, program_work, total_hbm_bytes
from block_recurrent.config import ModelConfig, RunConfig
from block_recurrent.errors import InputError
from block_recurrent.model.flops import forward_flops, training_flops
from block_recurrent.parallel.compiler_options import compiler_options
from block_recurrent.parallel.kernels import compile_with_kernels
from block_recurrent.parallel.sharding import check_rows, make_mesh
from block_recurrent.training.step import abstract_train_state

USABLE_SHARE = 0.98  # of a chip's memory: libtpu gives a program 15.75 of 16 GiB
# In libtpu's message about a program that does not fit: all bytes that it needs, or those of its temporaries alone.
_REJECTED = re.compile(r"(Used |temporaries \()([\d.]+)([KMGT])")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """Result of compiling a step for a slice; all byte counts except `host_bytes` are for one chip.

    Attributes:
        step: `train`, `evaluate` or `decode`.
        topology: name of the slice.
        num_chips: chips that run the step.
        batch_size: rows of the batch.
        tokens: tokens of the step.
        parameters, optimizer, state: bytes that persist between steps.
        temporaries: peak bytes of temporary arrays, as reported by the compiler.
        code: bytes of the program's code; 0 if the compiler rejected the program.
        peak: peak bytes in use: persistent arrays, batch, temporaries and code. A chip's HBM must hold them.
        capacity: bytes of a chip's HBM.
        flops_per_token: model FLOPs per token, counted analytically.
        flops: model FLOPs of the step on all chips, counted analytically.
        traffic: collectives by kind.
        estimate: estimated time of the step.
        lower_seconds: seconds of tracing and lowering.
        compile_seconds: seconds of compiling with libtpu.
        host_bytes: largest resident memory of this process so far.
        program: see `program_fingerprint`.
        hbm_bytes: bytes that the program reads from and writes to HBM; None in entries older than this count.
        unknown_loops: whether a loop with an unknown number of iterations is counted once in traffic and estimate.
    """

    step: str
    topology: str
    num_chips: int
    batch_size: int
    tokens: int
    parameters: int
    optimizer: int
    state: int
    temporaries: int
    code: int
    peak: int
    capacity: int
    flops_per_token: float
    flops: float
    traffic: dict[str, Traffic]
    estimate: Estimate
    lower_seconds: float
    compile_seconds: float
    host_bytes: int
    program: str
    hbm_bytes: float | None = None
    unknown_loops: bool = False

    @property
    def rejected(self) -> bool:
        """True if the compiler rejected the program: only its memory is known."""
        return self.code == 0

    @property
    def fits(self) -> bool:
        """True if the step fits into a chip's HBM."""
        return self.peak <= USABLE_SHARE * self.capacity


def compile_step(step: str, run: RunConfig, topology: Topology) -> CompiledStep:
    """Lowers and compiles a step for a slice.

    Args:
        step: one of `steps.STEPS`.
        run: the experiment.
        topology: the slice; it need not be attached.

    Raises:
        InputError: the mesh does not match the slice or the batch, the compiler refuses the fused attention kernel, or
            libtpu is not installed.
    """
    mesh = _mesh(run, topology)
    started = time.perf_counter()
    lowered = lower_step(step, run, mesh)
    lowered_at = time.perf_counter()
    persistent = _persistent_bytes(step, run, mesh)
    program = _compile(run.model, lowered, sum(persistent.values()))
    seconds = (lowered_at - started, time.perf_counter() - lowered_at)
    return _compiled_step(step, run, topology, persistent, program, seconds, _fingerprint(lowered))


def program_fingerprint(step: str, run: RunConfig, topology: Topology) -> str:
    """Returns the version of libtpu and a hash of a step's lowered program and compiler options; compiles nothing.

    Args:
        step: one of `steps.STEPS`.
        run: the experiment.
        topology: the slice; it need not be attached.

    Raises:
        InputError: as in `compile_step`.
    """
    return _fingerprint(lower_step(step, run, _mesh(run, topology)))


def _mesh(run: RunConfig, topology: Topology) -> Mesh:
    mesh = make_mesh(run.mesh, topology.devices())
    check_rows(mesh, run.data.batch_size, run.train.accumulate_steps)
    return mesh


def _fingerprint(lowered: Any) -> str:
    compiler_input = f"{sorted(compiler_options('tpu').items())}\n{without_locations(lowered.as_text())}"
    return f"libtpu {importlib.metadata.version('libtpu')}, {hashlib.sha256(compiler_input.encode()).hexdigest()[:16]}"


@dataclasses.dataclass(frozen=True)
class _Program:
    """Memory, instructions and collectives of a compiled program on one device.

    Attributes:
        arguments: bytes of the arguments; None if the compiler rejected the program.
        temporaries: peak bytes of temporary arrays.
        code: bytes of the program's code.
        work: its instructions.
        traffic: collectives by kind.
    """

    arguments: int | None
    temporaries: int
    code: int
    work: list[Work]
    traffic: dict[str, Traffic]


def _compile(config: ModelConfig, lowered: Any, persistent: int) -> _Program:
    """Compiles a program; if it does not fit, takes the bytes that it needs from the compiler's error message."""
    try:
        compiled = compile_with_kernels(config, lowered)
    except InputError:
        raise
    except Exception as error:  # jaxlib's own error class
        rejected = _REJECTED.search(str(error))
        if rejected is None:
            raise
        needed = round(float(rejected[2]) * _UNITS[rejected[3]])
        return _Program(None, needed - persistent if rejected[1] == "Used " else needed, 0, [], {})
    memory = compiled.memory_analysis()
    program = parse_program(compiled.as_text())
    return _Program(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.peak_memory_in_bytes - memory.argument_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        work=program_work(program),
        traffic=collectives(program),
    )


def _persistent_bytes(step: str, run: RunConfig, mesh: Mesh) -> dict[str, int]:
    """Returns the bytes on one device that persist between steps."""
    state = abstract_train_state(run)
    return {
        "parameters": bytes_per_device(mesh, state.params),
        "optimizer": bytes_per_device(mesh, state.opt_state) if step == "train" else 0,
        "state": bytes_per_device(mesh, state.model_state) if step != "decode" else 0,
    }


def _compiled_step(
    step: str,
    run: RunConfig,
    topology: Topology,
    persistent: dict[str, int],
    program: _Program,
    seconds: tuple[float, float],
    fingerprint: str,
) -> CompiledStep:
    rows, length = run.data.batch_size, run.data.segment_length
    per_token = training_flops(run.model, length) if step == "train" else sum(forward_flops(run.model, length).values())
    tokens = {"train": run.tokens_per_step, "evaluate": rows * length, "decode": DECODE_ROWS * DECODE_TOKENS}[step]
    chips = 1 if step == "decode" else topology.num_chips
    devices = topology.chip.devices
    arguments = sum(persistent.values()) if program.arguments is None else program.arguments
    return CompiledStep(
        step=step,
        topology=topology.name,
        num_chips=chips,
        batch_size=DECODE_ROWS if step == "decode" else rows,
        tokens=tokens,
        **{part: devices * size for part, size in persistent.items()},
        temporaries=devices * program.temporaries,
        code=devices * program.code,
        peak=devices * (arguments + program.temporaries + program.code),
        capacity=topology.chip.memory,
        flops_per_token=per_token,
        flops=per_token * tokens,
        traffic=program.traffic,
        estimate=estimate_step(
            topology.chip,
            model_flops=per_token * tokens / chips,
            work=program.work,
            traffic=program.traffic,
            num_chips=chips,
        ),
        lower_seconds=seconds[0],
        compile_seconds=seconds[1],
        host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        program=fingerprint,
        hbm_bytes=devices * total_hbm_bytes(program.work) if program.work else None,
        unknown_loops=any(one.in_unknown_loop for one in program.work),
    )
