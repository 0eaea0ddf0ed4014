"""Scores batches token by token, with the unchanged model or with another scoring method."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float

from block_recurrent.config import MeshConfig, ModelConfig
from block_recurrent.data.batching.batches import Batch
from block_recurrent.model.language_model import init_state
from block_recurrent.model.state import ModelState
from block_recurrent.parallel.sharding import make_mesh, replicated, row_sharding
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
        batch: the batch.
        losses: (B, T) float32 losses of the targets, 0 where not scored.
        state: state of the scoring method after the batch.
    """

    step: int
    batch: Batch
    losses: np.ndarray
    state: Any


class Placement:
    """Placement of an evaluation on devices: batch rows are sharded, parameters replicated.

    Batches are padded to a multiple of the number of devices; the added rows are not scored.

    Args:
        devices: the devices; None means all.
    """

    def __init__(self, devices: Sequence[Any] | None = None):
        mesh = make_mesh(MeshConfig(), devices)
        self.rows, self.replicated = row_sharding(mesh), replicated(mesh)

    def padded(self, rows: int) -> int:
        """Returns the number of rows after padding."""
        return -(-rows // self.rows.num_devices) * self.rows.num_devices

    def put(self, tree: Any) -> Any:
        """Pads host arrays (B, ...) and shards them over the devices."""

        def put(x: np.ndarray) -> jax.Array:
            added = self.padded(len(x)) - len(x)
            return jax.device_put(np.pad(x, [(0, added)] + [(0, 0)] * (x.ndim - 1)), self.rows)

        return jax.tree.map(put, tree)

    def replicate(self, params: Params) -> Params:
        """Replicates parameters on every device."""
        return jax.device_put(params, self.replicated)

    def init(self, method: ScoringMethod, params: Params, rows: int) -> Any:
        """Returns the state of a method before the first segment, on the devices."""
        return jax.device_put(method.init(params, self.padded(rows)), self.rows)


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
    method: ScoringMethod, params: Params, state: Any, batches: Iterable[Batch], placement: Placement, first: int = 0
) -> Iterator[ScoredBatch]:
    """Scores batches one after another; each result is copied to the host during the next batch's computation.

    Args:
        method: scoring method.
        params: parameters of the model, on the placement's devices.
        state: state before the first batch, on the placement's devices.
        batches: batches in the schedule's order.
        placement: the devices.
        first: index of the first batch.
    """
    pending: tuple[int, Batch, jax.Array, Any] | None = None
    for step, batch in enumerate(batches, first):
        state, losses = method.step(params, state, placement.put(method.inputs(batch)))
        if pending is not None:
            yield _finish(pending)
        pending = step, batch, losses, state
    if pending is not None:
        yield _finish(pending)


def _finish(pending: tuple[int, Batch, jax.Array, Any]) -> ScoredBatch:
    step, batch, losses, state = pending
    return ScoredBatch(step, batch, to_host(losses)[: len(batch.tokens)], state)


def to_host(x: jax.Array) -> np.ndarray:
    """Returns the whole array as numpy, also if its rows are spread over several hosts."""
    if x.is_fully_addressable:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


@functools.partial(jax.jit, static_argnums=0)
def _carried_step(
    config: ModelConfig, params: Params, state: ModelState, batch: SegmentBatch
) -> tuple[ModelState, Float[Array, "B T"]]:
    scored = score_tokens(config, params, state, batch)
    return scored.state, scored.losses
