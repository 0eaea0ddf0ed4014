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


class Method(NamedTuple):
    """A way to read documents segment by segment: what is remembered of each row, and how a segment is scored.

    Attributes:
        name: short, for progress and files.
        init: memory before the first segment, of (parameters, rows): a pytree of arrays with a leading axis of rows.
        step: (parameters, memory, inputs) -> (memory, nats (B, T) of the targets, 0 where not scored); jitted.
        inputs: of a batch, what `step` reads: a pytree of numpy arrays with a leading axis of rows.
    """

    name: str
    init: Callable[[Params, int], Any]
    step: Callable[[Params, Any, Any], tuple[Any, jax.Array]]
    inputs: Callable[[Batch], Any]


class Scored(NamedTuple):
    """A scored batch.

    Attributes:
        step: its number.
        batch: what was read.
        nats: (B, T) float32 of the targets, 0 where not scored.
        memory: what is remembered behind it.
    """

    step: int
    batch: Batch
    nats: np.ndarray
    memory: Any


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

    def init(self, method: Method, params: Params, rows: int) -> Any:
        """The memory of a method before the first segment."""
        return jax.device_put(method.init(params, self.padded(rows)), self.rows)


def carried(config: ModelConfig) -> Method:
    """The model as it is: its memory goes from segment to segment."""
    return Method(
        "carried", functools.partial(init_state, config), functools.partial(_carried_step, config), segment_batch
    )


def segment_batch(batch: Batch) -> SegmentBatch:
    """The part of a batch that the model reads."""
    arrays: Any = (batch.tokens, batch.targets, batch.weights, batch.start_of_document)
    return SegmentBatch(*arrays)


def score(
    method: Method, params: Params, memory: Any, batches: Iterable[Batch], placement: Placement, first: int = 0
) -> Iterator[Scored]:
    """Scores batches one after the other; each result is read while the next one is computed.

    Args:
        method: how.
        params: the parameters, on the placement's devices.
        memory: before the first of the batches, on the placement's devices.
        batches: in the schedule's order.
        placement: the devices.
        first: number of the first batch.
    """
    pending: tuple[int, Batch, jax.Array, Any] | None = None
    for step, batch in enumerate(batches, first):
        memory, nats = method.step(params, memory, placement.put(method.inputs(batch)))
        if pending is not None:
            yield _read(pending)
        pending = step, batch, nats, memory
    if pending is not None:
        yield _read(pending)


def _read(pending: tuple[int, Batch, jax.Array, Any]) -> Scored:
    step, batch, nats, memory = pending
    return Scored(step, batch, to_host(nats)[: len(batch.tokens)], memory)


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
    return scored.state, scored.losses
