"""Scoring batches one after the other, every token for itself, by the model as it is or by any other method."""

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
    """A way to read documents segment by segment: what is remembered of each row, and how a segment is scored.

    Attributes:
        name: short, for progress and files.
        init: state before the first segment, of (parameters, rows): a pytree of arrays with a leading axis of rows.
        step: (parameters, state, inputs) -> (state, losses (B, T) of the targets, 0 where not scored); jitted.
        inputs: of a batch, what `step` reads: a pytree of numpy arrays with a leading axis of rows.
    """

    name: str
    init: Callable[[Params, int], Any]
    step: Callable[[Params, Any, Any], tuple[Any, jax.Array]]
    inputs: Callable[[Batch], Any]


class ScoredBatch(NamedTuple):
    """A scored batch.

    Attributes:
        step: its number.
        batch: what was read.
        losses: (B, T) float32 of the targets, 0 where not scored.
        state: what is remembered behind it.
    """

    step: int
    batch: Batch
    losses: np.ndarray
    state: Any


class Placement:
    """Rows of a batch, dealt out over devices; parameters are on every device.

    Rows are filled up to a multiple of the devices, so any batch works; the added rows score nothing.

    Args:
        devices: which; None means all.
    """

    def __init__(self, devices: Sequence[Any] | None = None):
        mesh = make_mesh(MeshConfig(), devices)
        self.rows, self.replicated = row_sharding(mesh), replicated(mesh)

    def padded(self, rows: int) -> int:
        """Rows, the added ones included."""
        return -(-rows // self.rows.num_devices) * self.rows.num_devices

    def put(self, tree: Any) -> Any:
        """Arrays (B, ...) of the host, on the devices."""

        def put(x: np.ndarray) -> jax.Array:
            added = self.padded(len(x)) - len(x)
            return jax.device_put(np.pad(x, [(0, added)] + [(0, 0)] * (x.ndim - 1)), self.rows)

        return jax.tree.map(put, tree)

    def replicate(self, params: Params) -> Params:
        """Parameters, on every device."""
        return jax.device_put(params, self.replicated)

    def init(self, method: ScoringMethod, params: Params, rows: int) -> Any:
        """The state of a method before the first segment."""
        return jax.device_put(method.init(params, self.padded(rows)), self.rows)


def carried(config: ModelConfig) -> ScoringMethod:
    """The model as it is: its state goes from segment to segment."""
    return ScoringMethod(
        "carried", functools.partial(init_state, config), functools.partial(_carried_step, config), segment_batch
    )


def segment_batch(batch: Batch) -> SegmentBatch:
    """The part of a batch that the model reads."""
    arrays: Any = (batch.tokens, batch.targets, batch.weights, batch.start_of_document)
    return SegmentBatch(*arrays)


def score(
    method: ScoringMethod, params: Params, state: Any, batches: Iterable[Batch], placement: Placement, first: int = 0
) -> Iterator[ScoredBatch]:
    """Scores batches one after the other; each result is read while the next one is computed.

    Args:
        method: how.
        params: the parameters, on the placement's devices.
        state: before the first of the batches, on the placement's devices.
        batches: in the schedule's order.
        placement: the devices.
        first: number of the first batch.
    """
    pending: tuple[int, Batch, jax.Array, Any] | None = None
    for step, batch in enumerate(batches, first):
        state, losses = method.step(params, state, placement.put(method.inputs(batch)))
        if pending is not None:
            yield _read(pending)
        pending = step, batch, losses, state
    if pending is not None:
        yield _read(pending)


def _read(pending: tuple[int, Batch, jax.Array, Any]) -> ScoredBatch:
    step, batch, losses, state = pending
    return ScoredBatch(step, batch, to_host(losses)[: len(batch.tokens)], state)


def to_host(x: jax.Array) -> np.ndarray:
    """All of an array, also where its rows lie on several hosts."""
    if x.is_fully_addressable:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


@functools.partial(jax.jit, static_argnums=0)
def _carried_step(
    config: ModelConfig, params: Params, state: ModelState, batch: SegmentBatch
) -> tuple[ModelState, Float[Array, "B T"]]:
    scored = score_tokens(config, params, state, batch)
    return scored.state, scored.nats
