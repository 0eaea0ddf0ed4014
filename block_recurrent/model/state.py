"""What a model remembers between segments: Transformer-XL caches and recurrent states, as one pytree.

A state is an argument and a result of every call, never hidden in a module; training, evaluation and generation each
own one. Crossing a segment boundary it is an input, so no gradient flows through it.
"""

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp

from block_recurrent.config import ModelConfig
from block_recurrent.typing import CacheHeads, RowMask, States

_Tree = TypeVar("_Tree")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerState:
    """One layer's memory, in the activations' dtype.

    Attributes:
        keys: unit-length keys of the last block; None without a window.
        values: values of the last block; None without a window.
        recurrent: the state vectors; of an LSTM its two; None in an ordinary layer.
    """

    keys: CacheHeads | None
    values: CacheHeads | None
    recurrent: States | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModelState:
    """The memory of every layer, from the first to the last."""

    layers: tuple[LayerState, ...]


def init_layer_state(config: ModelConfig, batch_size: int, recurrent: States | None) -> LayerState:
    """A layer's memory at the start of a document: empty caches (zeros, which are attended to) and the given states."""
    if config.window_length is None:
        return LayerState(keys=None, values=None, recurrent=recurrent)
    shape = (batch_size, config.window_length, config.num_heads, config.head_dim)
    # Two buffers: one shared by keys and values could not be donated.
    return LayerState(keys=jnp.zeros(shape, config.dtype), values=jnp.zeros(shape, config.dtype), recurrent=recurrent)


def reset_rows(state: ModelState, initial: ModelState, start_of_document: RowMask) -> ModelState:
    """Replaces the memory of the rows that start a document by the initial one; other rows keep theirs."""
    return select_rows(start_of_document, initial, state)


def select_rows(rows: RowMask, new: _Tree, old: _Tree) -> _Tree:
    """Takes the rows that are True from one tree of arrays (B, ...) and the others from another."""

    def select(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(select, new, old)
