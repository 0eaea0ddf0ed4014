"""The segment that is being decoded, for models with an external memory.

The memory is written when a segment of T tokens is complete, as in training. Until then the keys and values of its
complete blocks wait here; those of the current block are in the rings. Every row has its own position in its segment.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.model.ops.attention import KeyValues
from block_recurrent.model.ops.memory import Memory, write
from block_recurrent.model.state import ModelState, select_rows
from block_recurrent.typing import CacheHeads, RowMask


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OpenSegment:
    """The complete blocks of the current segment.

    Attributes:
        layers: keys and values (B, T - W, N, H) of each layer with an external memory, from the first to the last.
            With segments of one window, and with block feedback, which writes block by block, there are no slots.
        filled: (B,) int32, tokens in these blocks: a multiple of W from 0 to T - W.
    """

    layers: tuple[KeyValues, ...]
    filled: Int[Array, "B"]

    @property
    def slots(self) -> int:
        """T - W, the number of tokens that fit."""
        return self.layers[0].keys.shape[1]


def start_segment(
    config: ModelConfig, batch_size: int, *, block_length: int, segment_length: int | None
) -> OpenSegment | None:
    """Returns the state at the start of a segment; None for a model without an external memory.

    Args:
        config: the model.
        batch_size: rows.
        block_length: W; without a window, T.
        segment_length: T; only used for a model that writes its memory segment by segment.

    Raises:
        InputError: the segment length is not known, or does not fit the model.
    """
    if not config.memory_layers:
        return None
    length = block_length if config.feedback else segment_length
    if length is None:
        raise InputError(
            "segment_length = None: a model with an external memory needs the segment length of its training: the "
            "memory is written segment by segment"
        )
    config.check_memory_segment(length, "segment_length")
    if length < block_length or length % block_length:
        raise InputError(f"segment_length = {length}: must be a multiple of the window, {block_length}")
    shape = (batch_size, length - block_length, config.num_heads, config.head_dim)
    layers = tuple(
        KeyValues(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype)) for _ in config.memory_indices
    )
    return OpenSegment(layers=layers, filled=jnp.zeros(batch_size, jnp.int32))


def end_blocks(
    config: ModelConfig, state: ModelState, segment: OpenSegment, blocks: Sequence[KeyValues], ended: RowMask
) -> tuple[ModelState, OpenSegment]:
    """Adds the blocks that some rows have completed to their segments; writes complete segments into the memories.

    Args:
        config: the model.
        state: the model state; only its memories change.
        segment: the segment before these blocks.
        blocks: keys and values (B, W, N, H) of the current block, for each layer of the model.
        ended: rows that have completed their block.
    """
    indices = sorted(config.memory_indices)
    blocks, full = [blocks[index] for index in indices], ended & (segment.filled == segment.slots)

    def write_segments(memories: tuple[Memory, ...]) -> tuple[Memory, ...]:
        return tuple(
            select_rows(full, write(memory, *map(_concatenate, kv, block)), memory)
            for memory, kv, block in zip(memories, segment.layers, blocks, strict=True)
        )

    memories = tuple(state.layers[index].memory for index in indices)
    memories = jax.lax.cond(jnp.any(full), write_segments, lambda memories: memories, memories)
    layers = list(state.layers)
    for index, memory in zip(indices, memories, strict=True):
        layers[index] = layers[index].with_memory(memory)
    return ModelState(tuple(layers)), _add(segment, blocks, ended & ~full, full)


def _add(segment: OpenSegment, blocks: list[KeyValues], added: RowMask, full: RowMask) -> OpenSegment:
    if not segment.slots:
        return segment
    length = blocks[0].keys.shape[1]
    slots = jnp.where(added, segment.filled, segment.slots)[:, None] + jnp.arange(length)[None]  # others: out of range
    rows = jnp.arange(added.shape[0])[:, None]  # `len` fails on the symbolic dimensions of an export

    def put(waiting: CacheHeads, block: CacheHeads) -> CacheHeads:
        return waiting.at[rows, slots].set(block, mode="drop")

    layers = tuple(KeyValues(*map(put, kv, block)) for kv, block in zip(segment.layers, blocks, strict=True))
    return OpenSegment(layers=layers, filled=jnp.where(full, 0, segment.filled + length * added))


def _concatenate(waiting: CacheHeads, block: CacheHeads) -> CacheHeads:
    return jnp.concatenate([waiting, block], axis=1)
