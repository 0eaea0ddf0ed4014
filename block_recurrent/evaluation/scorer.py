"""Scores batches token by token, with the unchanged model or with another scoring method."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.data.batching.batches import Batch
from block_recurrent.model.language_model import init_state
from block_recurrent.model.state import ModelState
from block_recurrent.parallel.placement import Placement, to_host
from block_recurrent.training.step import SegmentBatch, score_tokens
from block_recurrent.typing import Params


class ScoringMethod(NamedTuple):
    """A way to score documents segment by segment, with a state that is carried from segment to segment.

    Attributes:
        name: short name for progress and files.
        init: (parameters, rows) -> state before the first segment, a pytree of arrays with a leading axis of rows.
        step: (parameters, state, inputs) -> (state, (B, T) losses of the targets, 0 where not scored); jitted.
        inputs: batch -> inputs of `step`, a pytree of numpy arrays with a leading axis of rows.
    """

    name: str
    init: Callable[[Params, int], Any]
    step: Callable[[Params, Any, Any], tuple[Any, jax.Array]]
    inputs: Callable[[Batch], Any]


class ScoredBatch(NamedTuple):
    """A scored batch.

    Attributes:
        step: index of the batch.
        batch: this process's rows of the batch.
        losses: (B, T) float32 losses of the targets of all rows, 0 where not scored.
        state: state of the scoring method after the batch.
    """

    step: int
    batch: Batch
    losses: np.ndarray
    state: Any


def carried(config: ModelConfig) -> ScoringMethod:
    """Returns the unchanged model as a method: its state is carried from segment to segment."""
    return ScoringMethod(
        "carried", functools.partial(init_state, config), functools.partial(_carried_step, config), segment_batch
    )


def segment_batch(batch: Batch) -> SegmentBatch:
    """Returns the part of a batch that the model needs."""
    arrays: Any = (batch.tokens, batch.targets, batch.weights, batch.start_of_document)
    return SegmentBatch(*arrays)


def score(
    method: ScoringMethod,
    params: Params,
    state: Any,
    batches: Iterable[Batch],
    placement: Placement,
    rows: int,
    first: int = 0,
) -> Iterator[ScoredBatch]:
    """Scores batches one after another; each result is copied to the host during the next batch's computation.

    Args:
        method: scoring method.
        params: parameters of the model, on the placement's devices.
        state: state before the first batch, on the placement's devices.
        batches: this process's rows of the batches, in the schedule's order.
        placement: the devices.
        rows: B, rows of a batch over all processes.
        first: index of the first batch.
    """
    take_step = placement.gathering(method.step)
    pending: tuple[int, Batch, jax.Array, Any] | None = None
    for step, batch in enumerate(batches, first):
        state, losses = take_step(params, state, placement.put(method.inputs(batch), rows))
        if pending is not None:
            yield _finish(pending, rows)
        pending = step, batch, placement.to_every_process(losses), state
    if pending is not None:
        yield _finish(pending, rows)


def _finish(pending: tuple[int, Batch, jax.Array, Any], rows: int) -> ScoredBatch:
    step, batch, losses, state = pending
    return ScoredBatch(step, batch, to_host(losses)[:rows], state)


@functools.partial(jax.jit, static_argnums=0)
def _carried_step(
    config: ModelConfig, params: Params, state: ModelState, batch: SegmentBatch
) -> tuple[ModelState, Float[Array, "B T"]]:
    scored = score_tokens(config, params, state, batch)
    return scored.state, scored.losses
