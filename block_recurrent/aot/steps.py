"""Lowers the programs of training, evaluation and decoding for devices that are not attached."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

from block_recurrent.config import RunConfig
from block_recurrent.generation.sampling import Sampling
from block_recurrent.generation.sampling_loop import sample_tokens
from block_recurrent.generation.stablehlo import abstract_state
from block_recurrent.model.language_model import abstract_params
from block_recurrent.parallel.sharding import shardings
from block_recurrent.training.evaluator import jit_evaluation
from block_recurrent.training.loop import jit_train_step
from block_recurrent.training.step import SegmentBatch, abstract_train_state

STEPS = ("train", "evaluate", "decode")
DECODE_ROWS, DECODE_TOKENS = 8, 64  # one call of the decoding loop


def lower_step(step: str, run: RunConfig, mesh: Mesh) -> Any:
    """Traces and lowers a step.

    Args:
        step: one of `STEPS`; `decode` is the loop that samples tokens, on one device.
        run: the experiment; evaluation uses the training batch.
        mesh: mesh of the slice's devices.

    Returns:
        `jax.stages.Lowered`.
    """
    if step == "decode":
        return _lower_decode(run, mesh)
    batch = _with_shardings(mesh, abstract_batch(run))
    if step == "train":
        return jit_train_step(run, mesh).lower(_with_shardings(mesh, abstract_train_state(run)), batch)
    params = _with_shardings(mesh, abstract_params(run.model))
    initialise, take_step = jit_evaluation(run.model, mesh, run.data.batch_size)
    model_state = _with_shardings(mesh, jax.eval_shape(initialise, params))
    return take_step.lower(params, model_state, batch)


def abstract_batch(run: RunConfig) -> SegmentBatch:
    """Returns the shapes and dtypes of a batch."""
    shape = (run.data.batch_size, run.data.segment_length)
    return jax.eval_shape(
        lambda: SegmentBatch(
            tokens=jnp.zeros(shape, jnp.int32),
            targets=jnp.zeros(shape, jnp.int32),
            weights=jnp.zeros(shape),
            start_of_document=jnp.zeros(shape[:1], bool),
        )
    )


def _lower_decode(run: RunConfig, mesh: Mesh) -> Any:
    device = SingleDeviceSharding(mesh.devices.flat[0])
    state = abstract_state(run.model, run.data.segment_length, DECODE_ROWS)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), DECODE_ROWS))
    counts = jax.ShapeDtypeStruct((DECODE_ROWS,), jnp.int32)
    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        (abstract_params(run.model), state, keys, counts),
    )
    decode = jax.jit(sample_tokens, static_argnums=(0, 1, 2, 3))
    return decode.lower(run.model, Sampling(), DECODE_TOKENS, run.model.vocab_size, *arguments)


def _with_shardings(mesh: Mesh, tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings(mesh, tree),
    )
