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
from block_recurrent.parallel.sharding import with_shardings
from block_recurrent.training.evaluator import jit_evaluation
from block_recurrent.training.step_program import abstract_batch, lower_train_step

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
    if step == "train":
        return lower_train_step(run, mesh)
    batch = with_shardings(mesh, abstract_batch(run))
    params = with_shardings(mesh, abstract_params(run.model))
    initialise, take_step = jit_evaluation(run.model, mesh, run.data.batch_size)
    model_state = with_shardings(mesh, jax.eval_shape(initialise, params))
    return take_step.lower(params, model_state, batch)


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
