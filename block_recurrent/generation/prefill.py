"""Prefill: runs many tokens of each row through the parallel forward pass."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from block_recurrent.config import ModelConfig
from block_recurrent.generation.decode_state import (
    ByHead,
    DecodeState,
    begin_block,
    full_blocks,
    previous_block,
    token_layers,
)
from block_recurrent.generation.open_segment import end_blocks
from block_recurrent.model.language_model import BlockRecurrentLM, bind
from block_recurrent.model.ops.attention import KeyValues
from block_recurrent.model.state import ModelState, select_rows
from block_recurrent.typing import Activations, Params, Tokens


def prefill(
    config: ModelConfig, params: Params, state: DecodeState, tokens: Tokens, lengths: Int[Array, "B"]
) -> DecodeState:
    """Processes up to T tokens of each row and returns the state after them.

    If every row either begins a block and takes all T tokens, or takes none, the rows run as one segment, as in
    training and evaluation. Otherwise all rows run block by block. The tokens that a row already has in its block are
    then computed again, so rows may begin and end at any position. With an external memory, T must be the segment
    length for rows to run as one segment, and they must begin a segment.

    Args:
        config: the model.
        params: its parameters.
        state: the state before the tokens.
        tokens: (B, T); T is a multiple of W, or without a window the length of the longest segment.
        lengths: (B,) number of tokens that each row takes, 0 to T. Without a window, at most the row's empty slots.
    """
    model = bind(config, params)
    if config.window_length is None or not _is_segment(config, state, tokens.shape[1]):
        return _prefill_blocks(model, state, tokens, lengths)
    whole = (state.filled == 0) & (lengths == tokens.shape[1])
    if state.segment is not None:
        whole &= state.segment.filled == 0
    return jax.lax.cond(
        jnp.all(whole | (lengths == 0)),
        lambda state: select_rows(lengths > 0, _prefill_segment(model, state, tokens), state),
        lambda state: _prefill_blocks(model, state, tokens, lengths),
        state,
    )


def _is_segment(config: ModelConfig, state: DecodeState, length: int) -> bool:
    """Returns whether the parallel forward pass may run `length` tokens at once; see `open_segment`."""
    if state.segment is None or config.feedback:
        return True
    return length == state.segment.slots + state.tokens.shape[1]


def _prefill_segment(model: BlockRecurrentLM, state: DecodeState, tokens: Tokens) -> DecodeState:
    x, model_state, _ = model.apply_layers(tokens, state.model_state)
    return dataclasses.replace(
        state,
        model_state=model_state,
        layers=begin_block(model, model_state, state.tokens.shape),
        tokens=tokens[:, -state.tokens.shape[1] :].astype(jnp.int32),
        position=state.position + jnp.uint32(tokens.shape[1]),
        logits=model.unembed(x[:, -1:])[:, 0],
    )


def _prefill_blocks(
    model: BlockRecurrentLM, state: DecodeState, tokens: Tokens, lengths: Int[Array, "B"]
) -> DecodeState:
    def unfinished(carry: tuple[DecodeState, Array]) -> Array:
        return jnp.any(carry[1] < lengths)

    def next_block(carry: tuple[DecodeState, Array]) -> tuple[DecodeState, Array]:
        state, done = carry
        slots = jnp.arange(state.tokens.shape[1])[None]
        count = jnp.minimum(slots.size - state.filled, lengths - done)
        source = jnp.clip((done - state.filled)[:, None] + slots, 0, tokens.shape[1] - 1)
        fresh = jnp.take_along_axis(tokens.astype(jnp.int32), source, axis=1)
        block = jnp.where(slots < state.filled[:, None], state.tokens, fresh)
        ended = end_block(model, state, block, state.filled + count, run_block(model, block, state.model_state))
        return select_rows(count > 0, ended, state), done + count

    return jax.lax.while_loop(unfinished, next_block, (state, jnp.zeros_like(lengths)))[0]


def end_block(
    model: BlockRecurrentLM, state: DecodeState, block: Int[Array, "B W"], filled: Int[Array, "B"], ran: "RanBlock"
) -> DecodeState:
    """Returns the state after the first `filled` tokens of a block.

    Args:
        model: the model with its parameters.
        state: the state before these tokens; those that it already has in the block are at the block's start.
        block: tokens of a whole block.
        filled: (B,) tokens of the block that the state has afterwards.
        ran: `run_block` of this block.
    """
    x, model_state, own = ran
    x = jnp.take_along_axis(x, jnp.maximum(filled - 1, 0)[:, None, None], axis=1)
    taken = jnp.arange(block.shape[1])[None] < filled[:, None]
    layers = [
        dataclasses.replace(
            cache, ring=ByHead.of(_select_slots(taken, kv, previous_block(model.config, before, block.shape)))
        )
        for cache, kv, before in zip(state.layers, own, state.model_state.layers, strict=True)
    ]
    state = dataclasses.replace(
        state,
        layers=tuple(layers),
        tokens=jnp.where(taken, block, state.tokens),
        filled=filled,
        position=state.position + (filled - state.filled).astype(jnp.uint32),
        logits=model.unembed(x)[:, 0],
    )
    full = full_blocks(model.config, state)
    if state.segment is not None:
        before, segment = end_blocks(model.config, state.model_state, state.segment, own, full)
        state = dataclasses.replace(state, model_state=before, segment=segment)
        model_state = _with_memories(model_state, before)
    return dataclasses.replace(
        state,
        model_state=select_rows(full, model_state, state.model_state),
        layers=select_rows(full, begin_block(model, model_state, block.shape), state.layers),
        filled=jnp.where(full, 0, filled),
    )


class RanBlock(NamedTuple):
    """Result of `run_block`: activations, the state after the block, keys and values of its tokens in each layer."""

    x: Activations
    model_state: ModelState
    own: Sequence[KeyValues]


def run_block(model: BlockRecurrentLM, block: Tokens, model_state: ModelState) -> RanBlock:
    """Runs a whole block through the parallel forward pass.

    The external memories of the state after it have no meaning: they are written segment by segment, by `end_block`.
    """
    if model.config.window_length is not None:
        x, model_state, _ = model.apply_layers(block, model_state)
        own = [previous_block(model.config, layer, block.shape) for layer in model_state.layers]
        return RanBlock(x, model_state, own)
    x, own = model.embed(block), []
    for layer, state in zip(token_layers(model), model_state.layers, strict=True):
        x, projected = layer.forward(x, state, None, None)
        own.append(projected.kv)
    return RanBlock(x, model_state, own)


def _with_memories(state: ModelState, source: ModelState) -> ModelState:
    """Returns `state` with the external memories of `source`."""
    pairs = zip(state.layers, source.layers, strict=True)
    return ModelState(tuple(new if old.memory_keys is None else new.with_memory(old.memory) for new, old in pairs))


def _select_slots(taken: Bool[Array, "B W"], new: KeyValues, old: KeyValues) -> KeyValues:
    """Takes the slots that are True from `new` and the others from `old`."""
    return jax.tree.map(lambda new, old: jnp.where(taken[:, :, None, None], new, old), new, old)
