"""The state of decoding: a ring of keys and values per layer, the recurrent states and the next token's logits.

Decoding computes exactly what the parallel forward pass computes, with a state of constant size. Each layer keeps the
keys and values of the last W tokens in a ring: the token at position p is stored in slot p modulo W. A token attends to
exactly the W tokens before it and not to itself. Its slot holds the token W positions earlier while it attends, and is
overwritten afterwards, so no slot is ever masked. Tokens of a block attend to the recurrent states from before the
block. A full block updates the recurrent states from its keys and values and those of the previous block; the result is
the `ModelState` that the parallel forward pass returns.

Every row has its own position. Without a window the ring has one slot per token of the longest segment and is filled
once; with an external memory it begins again with each segment.

An external memory is that of the segments before the current one. It is written when a segment is complete, so such a
model is decoded with the segment length of its training (`open_segment`).
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.generation.open_segment import OpenSegment, start_segment
from block_recurrent.model.language_model import BlockRecurrentLM, bind
from block_recurrent.model.layers.lstm_baseline import LSTMLayer
from block_recurrent.model.layers.recurrent import RecurrentLayer
from block_recurrent.model.layers.transformer import TransformerLayer
from block_recurrent.model.ops.attention import KeyValues
from block_recurrent.model.state import LayerState, ModelState
from block_recurrent.parallel.placement import to_host
from block_recurrent.typing import Params, RowMask

NO_TOKEN = -1


class ByHead(NamedTuple):
    """Keys and values with the head axis before the slot axis."""

    keys: Float[Array, "B N K H"]
    values: Float[Array, "B N K H"]

    @classmethod
    def of(cls, kv: KeyValues) -> "ByHead":
        """Converts from the layout of attention, with slots before heads."""
        return cls(jnp.swapaxes(kv.keys, 1, 2), jnp.swapaxes(kv.values, 1, 2))

    def by_slot(self) -> KeyValues:
        """Converts to the layout of attention, with slots before heads."""
        return KeyValues(jnp.swapaxes(self.keys, 1, 2), jnp.swapaxes(self.values, 1, 2))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values that the next token of one layer attends to.

    Heads come before slots, so that the product of one query with many keys reads contiguous memory. With slots before
    heads each step transposes every ring: 2.4 instead of 1.1 ms on CPU for 16 rows of the laptop model, without writes.

    Attributes:
        ring: keys and values of the last W tokens; slots that no token has reached are zero.
        states: keys and values of the recurrent states before the block; None in an ordinary layer.
    """

    ring: ByHead
    states: ByHead | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """Everything that the next token depends on.

    Attributes:
        model_state: the model's state before the current block. Where `filled` is 0 it equals the state that the
            parallel forward pass returns for the same tokens; `from_model_state` converts in the other direction.
        layers: caches of the layers, from the first to the last.
        tokens: (B, W) int32, the last W tokens, in the slots of the layers' rings; -1 in empty slots.
        filled: (B,) int32, number of tokens in the current block: 0 to W - 1 (to W without a window).
        position: (B,) uint32, number of tokens so far, modulo 2 ** 32.
        logits: (B, V) float32, predictions of the next token; zeros before the first token.
        segment: the current segment's complete blocks; None for a model without an external memory.
    """

    model_state: ModelState
    layers: tuple[LayerCache, ...]
    tokens: Int[Array, "B W"]
    filled: Int[Array, "B"]
    position: UInt[Array, "B"]
    logits: Float[Array, "B V"]
    segment: OpenSegment | None = None


def init(config: ModelConfig, params: Params, batch_size: int, *, segment_length: int) -> DecodeState:
    """Returns the state at the start of a document.

    Args:
        config: the model.
        params: its parameters.
        batch_size: number of rows.
        segment_length: without a window, the largest number of tokens in a row; with an external memory, the tokens
            of a segment; otherwise ignored.

    Raises:
        InputError: the model is an LSTM; only transformers are decoded. Or the segment length does not fit an external
            memory.
    """
    if config.layer == "lstm":
        raise InputError("ModelConfig.layer = 'lstm': a baseline for training and evaluation; it cannot be decoded")
    block_length = config.window_length or segment_length
    return from_model_state(
        config,
        params,
        bind(config, params).init_state(batch_size),
        tokens=jnp.full((batch_size, block_length), NO_TOKEN, jnp.int32),
        position=jnp.zeros(batch_size, jnp.uint32),
        logits=jnp.zeros((batch_size, config.vocab_size)),
        segment_length=segment_length,
    )


def from_model_state(
    config: ModelConfig,
    params: Params,
    model_state: ModelState,
    *,
    tokens: Int[Array, "B W"],
    position: UInt[Array, "B"],
    logits: Float[Array, "B V"],
    segment_length: int | None = None,
) -> DecodeState:
    """Returns the state after a segment of the parallel forward pass.

    Args:
        config: the model.
        params: its parameters.
        model_state: the state that the forward pass returned.
        tokens: its last W tokens; -1 in empty slots.
        position: number of tokens so far.
        logits: predictions after the last token.
        segment_length: with an external memory, the tokens of a segment; otherwise ignored.

    Raises:
        InputError: the segment length is not given or does not fit, for a model with an external memory.
    """
    rows, block_length = tokens.shape
    return DecodeState(
        model_state=model_state,
        layers=begin_block(bind(config, params), model_state, tokens.shape),
        tokens=tokens,
        filled=jnp.zeros(tokens.shape[0], jnp.int32),
        position=position,
        logits=logits,
        segment=start_segment(config, rows, block_length=block_length, segment_length=segment_length),
    )


def begin_block(model: BlockRecurrentLM, model_state: ModelState, shape: tuple[int, ...]) -> tuple[LayerCache, ...]:
    """Returns the layers' caches for the first token of a block; `shape` is (B, W)."""
    caches = []
    for layer, state in zip(model.layers.values(), model_state.layers, strict=True):
        states = None
        if isinstance(layer, RecurrentLayer):
            assert state.recurrent is not None
            states = ByHead.of(layer.states.key_values(state.recurrent))
        caches.append(LayerCache(ring=ByHead.of(previous_block(model.config, state, shape)), states=states))
    return tuple(caches)


def previous_block(config: ModelConfig, state: LayerState, shape: tuple[int, ...]) -> KeyValues:
    """Returns the keys and values of a layer's previous block, zeros without a window; `shape` is (B, W)."""
    if state.keys is not None and state.values is not None:
        return KeyValues(state.keys, state.values)
    shape = (*shape, config.num_heads, config.head_dim)
    return KeyValues(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype))


def full_blocks(config: ModelConfig, state: DecodeState) -> RowMask:
    """Returns a mask of the rows that have filled their block; see `blocks_end`."""
    return (state.filled == state.tokens.shape[1]) & blocks_end(config)


def blocks_end(config: ModelConfig) -> bool:
    """Returns whether text can continue after a block.

    Without a window the only block is the longest segment. It ends only if the model has an external memory.
    """
    return config.window_length is not None or bool(config.memory_layers)


def token_layers(model: BlockRecurrentLM) -> Iterator[TransformerLayer]:
    """Yields the layers that process tokens, from the first to the last."""
    for layer in model.layers.values():
        assert not isinstance(layer, LSTMLayer)  # `init` refuses
        yield layer.tokens if isinstance(layer, RecurrentLayer) else layer


def take_rows(state: DecodeState, rows: Int[Array, "R"]) -> DecodeState:
    """Returns a state with the given rows, in order; a row may be taken several times."""
    return jax.tree.map(lambda leaf: leaf[rows], state)


def recent_tokens(state: DecodeState) -> list[list[int]]:
    """Returns the last few ids of each row, in order."""
    tokens, filled = to_host(state.tokens), to_host(state.filled)
    rolled = [np.roll(row, -int(count))[-4:] for row, count in zip(tokens, filled, strict=True)]
    return [[int(token) for token in row if token >= 0] for row in rolled]
