"""The compiled train step."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from block_recurrent.config import ModelConfig, RunConfig
from block_recurrent.model.language_model import layers_in_loops
from block_recurrent.parallel.compiler_options import compiler_options
from block_recurrent.parallel.kernels import compile_with_kernels, with_kernels
from block_recurrent.parallel.row_gradients import add_once, added_in_loops, rows_alone_are_divided
from block_recurrent.parallel.sharding import gather, replicated, shardings, with_shardings
from block_recurrent.training.optimizer import make_optimizer
from block_recurrent.training.step import Division, SegmentBatch, abstract_train_state, train_step


def jit_train_step(run: RunConfig, mesh: Mesh) -> jax.stages.Wrapped:
    """Returns the jitted step; it donates the old state.

    Raises:
        InputError: the attention kernel cannot be compiled for these devices.
    """
    step = functools.partial(
        train_step,
        run.model,
        make_optimizer(run.optimizer, run.train.num_steps),
        accumulate_steps=run.train.accumulate_steps,
        state_passing=run.train.state_passing,
        division=across_devices(
            run.model,
            mesh,
            abstract_train_state(run).params,
            passes=run.train.accumulate_steps * run.train.backprop_segments,
        ),
    )
    placed = shardings(mesh, abstract_train_state(run))
    return jax.jit(
        with_kernels(mesh, run.model, step),
        donate_argnums=0,
        out_shardings=(placed, replicated(mesh)),
        compiler_options=compiler_options(mesh.devices.flat[0].platform),
    )


def across_devices(config: ModelConfig, mesh: Mesh, params: Any, *, passes: int = 1) -> Division:
    """Returns how `train_step` is divided over the devices of a mesh.

    Args:
        config: the model.
        mesh: from `make_mesh`.
        params: parameters or their shapes.
        passes: backward passes of a step: micro-batches, times segments of each row.
    """
    if not rows_alone_are_divided(mesh, params):
        return Division(gather=functools.partial(gather, mesh))
    dtype = jnp.dtype(config.dtype)
    # A loop in a loop over blocks, segments or micro-batches would add each gradient several times per step.
    once = passes == 1 and not config.feedback
    looped = layers_in_loops(config) if once else frozenset()
    return Division(
        divide=functools.partial(add_once, mesh, dtype, looped),
        in_loops=added_in_loops(mesh, dtype) if looped else None,
    )


def compile_train_step(run: RunConfig, mesh: Mesh) -> Callable[[], jax.stages.Compiled]:
    """Lowers the step of a run and returns the function that compiles it.

    Raises:
        InputError: as `jit_train_step`, or, from the returned function, as `compile_with_kernels`.
    """
    return functools.partial(compile_with_kernels, run.model, lower_train_step(run, mesh))


def lower_train_step(run: RunConfig, mesh: Mesh) -> jax.stages.Lowered:
    """Traces and lowers the step of a run for the mesh's devices, which need not be attached."""
    state, batch = abstract_train_state(run), abstract_batch(run, run.train.backprop_segments)
    return jit_train_step(run, mesh).lower(with_shardings(mesh, state), with_shardings(mesh, batch))


def abstract_batch(run: RunConfig, segments: int = 1) -> SegmentBatch:
    """Returns the shapes and dtypes of a batch with a number of segments of each row."""
    rows = (run.data.batch_size,) if segments == 1 else (run.data.batch_size, segments)
    shape = (*rows, run.data.segment_length)
    return jax.eval_shape(
        lambda: SegmentBatch(
            tokens=jnp.zeros(shape, jnp.int32),
            targets=jnp.zeros(shape, jnp.int32),
            weights=jnp.zeros(shape),
            start_of_document=jnp.zeros(rows, bool),
        )
    )


@contextlib.contextmanager
def compiled_in_background(compiler: Callable[[], Callable[..., Any]]) -> Iterator[Callable[..., Any]]:
    """Compiles a program while the caller goes on; a call of the program waits for the compiler.

    Args:
        compiler: `compile` of a lowered function.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="compile") as executor:
        program = executor.submit(compiler)
        yield lambda *arguments, **named: program.result()(*arguments, **named)
