"""Compiling a run's steps for a slice: does it fit, how long may it take, what did the compiler need."""

import dataclasses
import hashlib
import importlib.metadata
import re
import resource
import time
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from block_recurrent.aot.collectives import Traffic, collectives
from block_recurrent.aot.roofline import Estimate, estimate
from block_recurrent.aot.steps import DECODED_ROWS, DECODED_TOKENS, lower_step
from block_recurrent.aot.summary import bytes_per_device
from block_recurrent.aot.topology import Topology
from block_recurrent.config import RunConfig
from block_recurrent.model.flops import TRAINING_FACTOR, forward_flops
from block_recurrent.parallel.compiler_options import compiler_options
from block_recurrent.parallel.sharding import check_rows, make_mesh
from block_recurrent.training.step import abstract_train_state

USABLE = 0.98  # of a chip's memory: libtpu gives a program 15.75 of 16 GiB
# What libtpu says of a program that does not fit: all that it takes, or its temporaries alone.
_REFUSED = re.compile(r"(Used |temporaries \()([\d.]+)([KMGT])")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """What is known of a step that was compiled for a slice; bytes are those of one chip.

    Attributes:
        step: `train`, `evaluate` or `decode`.
        topology: name of the slice.
        num_chips: of the slice.
        batch_size: rows of the batch.
        tokens: of the step.
        parameters, optimizer, state: bytes that outlive the step.
        temporaries: bytes in use besides, at most at once, by the compiler's own account.
        code: bytes of the program itself; 0 if the compiler refused it.
        peak: bytes in use at once at most: all of these and the batch. This has to fit.
        capacity: bytes of a chip's HBM.
        flops_per_token: analytic, of the model.
        flops: analytic, of the step on the whole slice.
        traffic: collectives by kind.
        estimate: a lower bound of the step's time.
        lower_seconds, compile_seconds: tracing, and compiling with libtpu.
        host_bytes: the largest resident memory of this process so far.
        program: what was compiled, by what: see `program_of`.
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

    @property
    def fits(self) -> bool:
        """Whether a chip has the memory."""
        return self.peak <= USABLE * self.capacity


def compile_step(step: str, run: RunConfig, topology: Topology) -> CompiledStep:
    """Lowers and compiles a step for a slice.

    Args:
        step: one of `steps.STEPS`.
        run: the experiment.
        topology: the slice; it need not be there.

    Raises:
        InputError: mesh and slice, or mesh and batch, do not fit each other, or libtpu is missing.
    """
    mesh = _mesh(run, topology)
    began = time.perf_counter()
    lowered = lower_step(step, run, mesh)
    lowered_at = time.perf_counter()
    lasting = _lasting(step, run, mesh)
    program = _compile(lowered, sum(lasting.values()))
    seconds = (lowered_at - began, time.perf_counter() - lowered_at)
    return _describe(step, run, topology, lasting, program, seconds, _fingerprint(lowered))


def program_of(step: str, run: RunConfig, topology: Topology) -> str:
    """The program that a step is, without compiling it: libtpu's version and a hash of all that libtpu is given.

    Args:
        step: one of `steps.STEPS`.
        run: the experiment.
        topology: the slice; it need not be there.

    Raises:
        InputError: as `compile_step`.
    """
    return _fingerprint(lower_step(step, run, _mesh(run, topology)))


def _mesh(run: RunConfig, topology: Topology) -> Mesh:
    mesh = make_mesh(run.mesh, topology.devices())
    check_rows(mesh, run.data.batch_size, run.train.accumulate_steps)
    return mesh


def _fingerprint(lowered: Any) -> str:
    given = f"{sorted(compiler_options('tpu').items())}\n{lowered.as_text()}"
    return f"libtpu {importlib.metadata.version('libtpu')}, {hashlib.sha256(given.encode()).hexdigest()[:16]}"


@dataclasses.dataclass(frozen=True)
class _Program:
    """Bytes of one device; `arguments` None of a program that the compiler refused."""

    arguments: int | None
    temporaries: int
    code: int
    moved: int
    traffic: dict[str, Traffic]


def _compile(lowered: Any, lasting: int) -> _Program:
    """Compiles; of a program that does not fit, the compiler says at least how much it would take."""
    try:
        compiled = lowered.compile()
    except Exception as error:  # jaxlib's own error class
        refused = _REFUSED.search(str(error))
        if refused is None:
            raise
        needed = round(float(refused[2]) * _UNITS[refused[3]])
        return _Program(None, needed - lasting if refused[1] == "Used " else needed, 0, 0, {})
    memory = compiled.memory_analysis()
    return _Program(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.peak_memory_in_bytes - memory.argument_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        # The compiler's sum of temporaries counts every buffer, not those in use at once.
        moved=memory.argument_size_in_bytes + memory.output_size_in_bytes + 2 * memory.temp_size_in_bytes,
        traffic=collectives(compiled.as_text()),
    )


def _lasting(step: str, run: RunConfig, mesh: Mesh) -> dict[str, int]:
    """Bytes on one device of what outlives the step."""
    state = abstract_train_state(run)
    return {
        "parameters": bytes_per_device(mesh, state.params),
        "optimizer": bytes_per_device(mesh, state.opt_state) if step == "train" else 0,
        "state": bytes_per_device(mesh, state.model_state) if step != "decode" else 0,
    }


def _describe(
    step: str,
    run: RunConfig,
    topology: Topology,
    lasting: dict[str, int],
    program: _Program,
    seconds: tuple[float, float],
    fingerprint: str,
) -> CompiledStep:
    rows, length = run.data.batch_size, run.data.segment_length
    per_token = sum(forward_flops(run.model, length).values()) * (TRAINING_FACTOR if step == "train" else 1)
    tokens = DECODED_ROWS * DECODED_TOKENS if step == "decode" else rows * length
    chips = 1 if step == "decode" else topology.num_chips
    devices = topology.chip.devices
    again = (DECODED_TOKENS - 1) * _parameters_read(run, lasting) if step == "decode" else 0
    arguments = sum(lasting.values()) if program.arguments is None else program.arguments
    return CompiledStep(
        step=step,
        topology=topology.name,
        num_chips=chips,
        batch_size=DECODED_ROWS if step == "decode" else rows,
        tokens=tokens,
        **{part: devices * size for part, size in lasting.items()},
        temporaries=devices * program.temporaries,
        code=devices * program.code,
        peak=devices * (arguments + program.temporaries + program.code),
        capacity=topology.chip.memory,
        flops_per_token=per_token,
        flops=per_token * tokens,
        traffic=program.traffic,
        estimate=estimate(
            topology.chip,
            flops=per_token * tokens / chips,
            moved=devices * (program.moved + again),
            traffic=program.traffic,
            num_chips=chips,
        ),
        lower_seconds=seconds[0],
        compile_seconds=seconds[1],
        host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        program=fingerprint,
    )


def _parameters_read(run: RunConfig, lasting: dict[str, int]) -> int:
    """Bytes of the parameters on one device as a token's decoding needs them: cast once, outside the loop."""
    return lasting["parameters"] * jnp.dtype(run.model.dtype).itemsize // jnp.dtype(jnp.float32).itemsize
