"""Scoring methods that change the recurrent states; the Transformer-XL caches are always carried.

The blocks of a segment run one after another, so that the states can be replaced before each block. Without a change,
the losses are those of the model: at a fixed window, the segment length changes nothing.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from block_recurrent.config import ModelConfig
from block_recurrent.data.batching.batches import Batch
from block_recurrent.data.store.excerpt import Split
from block_recurrent.evaluation.scorer import ScoringMethod, carried, segment_batch
from block_recurrent.model.language_model import apply, init_state
from block_recurrent.model.loss import cross_entropy
from block_recurrent.model.state import ModelState, reset_rows
from block_recurrent.training.step import SegmentBatch
from block_recurrent.typing import Params


class PositionedSegment(NamedTuple):
    """A segment and its place in each row's document.

    Attributes:
        batch: the segment.
        block: (B,) int32, index of the segment's first block in its document.
    """

    batch: SegmentBatch
    block: Int[Array, "B"]


class SegmentWithDonor(NamedTuple):
    """A segment and the same positions of another document, the donor.

    Attributes:
        batch: the segment.
        donor: (B, T) int32, the donor's tokens.
        whole: (B, C) bool, True for blocks entirely within the donor.
    """

    batch: SegmentBatch
    donor: Int[Array, "B T"]
    whole: Bool[Array, "B C"]


def reset(config: ModelConfig, *, every_blocks: int) -> ScoringMethod:
    """Returns a method that resets the recurrent states every `every_blocks` blocks."""
    return ScoringMethod(
        "reset",
        functools.partial(init_state, config),
        functools.partial(_reset_step, config, every_blocks),
        functools.partial(_positioned, config),
    )


def frozen(config: ModelConfig, *, after_blocks: int, name: str = "frozen") -> ScoringMethod:
    """Returns a method that freezes the recurrent states after `after_blocks` blocks of a document.

    With `after_blocks` = 0, tokens always attend to the initial states.
    """
    return ScoringMethod(
        name,
        functools.partial(init_state, config),
        functools.partial(_frozen_step, config, after_blocks),
        functools.partial(_positioned, config),
    )


def shuffled(config: ModelConfig, store: Split) -> ScoringMethod:
    """Returns a method whose tokens attend to another document's states at the same position (see `donors`)."""

    def init(params: Params, rows: int) -> tuple[ModelState, ModelState]:
        return init_state(config, params, rows), init_state(config, params, rows)

    return ScoringMethod(
        "shuffled",
        init,
        functools.partial(_shuffled_step, config),
        functools.partial(_with_donor, config, store, donors(store.lengths)),
    )


def window_only(config: ModelConfig) -> ScoringMethod:
    """Returns a method without cross-attention: attention to states adds nothing to the residual stream."""
    plain = carried(config)

    def step(params: Params, state: Any, inputs: Any) -> tuple[Any, jax.Array]:
        return plain.step(_without_cross_attention(config, params), state, inputs)

    return plain._replace(name="window_only", step=jax.jit(step))


def donors(lengths: np.ndarray) -> np.ndarray:
    """Returns each document's donor of states: the next longer document, and for the longest the second longest.

    Args:
        lengths: (D,) integers, tokens of each document; D must be at least 2.

    Returns:
        (D,) int64.
    """
    order = np.argsort(-lengths, kind="stable")
    partner = np.empty(len(lengths), np.int64)
    partner[order[1:]] = order[:-1]
    partner[order[0]] = order[1]
    return partner


def _positioned(config: ModelConfig, batch: Batch) -> PositionedSegment:
    block: Any = (batch.offset // (config.window_length or 1)).astype(np.int32)
    return PositionedSegment(segment_batch(batch), block)


def _with_donor(config: ModelConfig, store: Split, partner: np.ndarray, batch: Batch) -> SegmentWithDonor:
    rows, (_, length) = np.flatnonzero(batch.document >= 0), batch.tokens.shape
    pieces = [(int(partner[batch.document[r]]), int(batch.offset[r]), int(batch.offset[r]) + length) for r in rows]
    tokens, lengths = np.zeros(batch.tokens.shape, np.int32), np.zeros(len(batch.tokens), np.int64)
    for row, piece in zip(rows, store.read_many(pieces), strict=True):
        tokens[row, : len(piece)], lengths[row] = piece, len(piece)
    ends: Any = np.arange(1, length // (config.window_length or length) + 1) * (config.window_length or length)
    donor: Any = tokens
    return SegmentWithDonor(segment_batch(batch), donor, ends[None, :] <= lengths[:, None])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _reset_step(
    config: ModelConfig, every: int, params: Params, state: ModelState, inputs: PositionedSegment
) -> tuple[ModelState, jax.Array]:
    initial = init_state(config, params, len(inputs.block))

    def step(state: ModelState, block: "_Block") -> tuple[ModelState, jax.Array]:
        started = reset_rows(state, initial, block.number % every == 0)
        output = apply(config, params, block.tokens, _with_recurrent(state, started))
        return output.state, cross_entropy(output.logits, block.targets)

    return _over_blocks(config, params, step, state, inputs.batch, inputs.block)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _frozen_step(
    config: ModelConfig, after: int, params: Params, state: ModelState, inputs: PositionedSegment
) -> tuple[ModelState, jax.Array]:
    def step(state: ModelState, block: "_Block") -> tuple[ModelState, jax.Array]:
        output = apply(config, params, block.tokens, state)
        kept = reset_rows(output.state, state, block.number >= after)
        return _with_recurrent(output.state, kept), cross_entropy(output.logits, block.targets)

    return _over_blocks(config, params, step, state, inputs.batch, inputs.block)


@functools.partial(jax.jit, static_argnums=0)
def _shuffled_step(
    config: ModelConfig, params: Params, state: tuple[ModelState, ModelState], inputs: SegmentWithDonor
) -> tuple[tuple[ModelState, ModelState], jax.Array]:
    initial = init_state(config, params, len(inputs.donor))
    own, other = state
    other = reset_rows(other, initial, inputs.batch.start_of_document)

    def step(states: tuple[ModelState, ModelState], block: "_Block") -> tuple[Any, jax.Array]:
        (own, other), (donor, whole) = states, block.extra
        output = apply(config, params, block.tokens, _with_recurrent(own, other))
        other_next = apply(config, params, donor, other).state
        # After the end of the donor its states no longer change.
        other = reset_rows(other, other_next, whole)
        return (output.state, other), cross_entropy(output.logits, block.targets)

    extra = _blocks_first(config, inputs.donor), jnp.swapaxes(inputs.whole, 0, 1)
    start = reset_rows(own, initial, inputs.batch.start_of_document), other
    return _scan(config, step, start, inputs.batch, jnp.zeros(len(inputs.donor), jnp.int32), extra)


class _Block(NamedTuple):
    """One block of all rows.

    Attributes:
        tokens: (B, W).
        targets: (B, W).
        number: (B,), index of the block in each row's document.
        extra: further inputs of a method.
    """

    tokens: jax.Array
    targets: jax.Array
    number: jax.Array
    extra: Any


def _over_blocks(
    config: ModelConfig, params: Params, step: Any, state: ModelState, batch: SegmentBatch, block: jax.Array
) -> tuple[ModelState, jax.Array]:
    state = reset_rows(state, init_state(config, params, len(block)), batch.start_of_document)
    return _scan(config, step, state, batch, block, None)


def _scan(
    config: ModelConfig, step: Any, states: Any, batch: SegmentBatch, first_block: jax.Array, extra: Any
) -> tuple[Any, jax.Array]:
    tokens, targets = _blocks_first(config, batch.tokens), _blocks_first(config, batch.targets)
    numbers = jnp.broadcast_to(first_block[None], (len(tokens), len(first_block)))
    numbers = numbers + jnp.arange(len(tokens), dtype=numbers.dtype)[:, None]
    states, losses = jax.lax.scan(step, states, _Block(tokens, targets, numbers, extra))
    return states, jnp.swapaxes(losses, 0, 1).reshape(batch.weights.shape) * batch.weights


def _blocks_first(config: ModelConfig, x: jax.Array) -> jax.Array:
    """Reshapes (B, T) to (C, B, W)."""
    return jnp.swapaxes(x.reshape(len(x), -1, config.window_length or x.shape[1]), 0, 1)


def _with_recurrent(state: ModelState, source: ModelState) -> ModelState:
    """Combines the caches of `state` with the recurrent states of `source`."""
    pairs = zip(state.layers, source.layers, strict=True)
    return ModelState(tuple(dataclasses.replace(own, recurrent=other.recurrent) for own, other in pairs))


def _without_cross_attention(config: ModelConfig, params: Params) -> Params:
    """Zeroes the rows of the output projections that belong to attention to states (its heads come last)."""
    size = config.num_heads * config.head_dim

    def without(layer: Any) -> Any:
        if "tokens" in layer:
            return layer | {"tokens": without(layer["tokens"])}
        kernel = layer["output"]["kernel"]
        return layer if kernel.shape[0] == size else layer | {"output": {"kernel": kernel.at[size:].set(0)}}

    layers = {name: without(layer) for name, layer in params["layers"].items()}
    return {**params, "layers": layers}
