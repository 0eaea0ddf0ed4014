"""The model state: Transformer-XL caches and recurrent states, carried from segment to segment as one pytree.

Every call takes the state as an argument and returns the next one; modules hold none. The state is an input of each
training step, so no gradient flows from one step into the previous one. Within a step of several segments
(`TrainConfig.backprop_segments`), gradients flow from segment to segment.
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
    """State of one layer, in the dtype of the activations.

    Attributes:
        keys: (B, W, N, H) unit-length keys of the last block; None without a window and in an LSTM layer.
        values: (B, W, N, H) values of the last block; None where `keys` is None.
        recurrent: (B, S, D) state vectors of a recurrent layer; (B, 2, D) `c` and `h` of an LSTM layer; None in an
            ordinary layer.
    """

    keys: CacheHeads | None
    values: CacheHeads | None
    recurrent: States | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModelState:
    """State of all layers.

    Attributes:
        layers: one state per layer, from the first layer to the last.
    """

    layers: tuple[LayerState, ...]


def init_layer_state(config: ModelConfig, batch_size: int, recurrent: States | None) -> LayerState:
    """Returns a layer's state at the start of a document.

    Args:
        config: the model.
        batch_size: rows.
        recurrent: the layer's initial recurrent state; None in an ordinary layer.

    Returns:
        The recurrent state and, with a window, caches of zeros. Queries attend to these zeros (official code).
    """
    if config.window_length is None:
        return LayerState(keys=None, values=None, recurrent=recurrent)
    shape = (batch_size, config.window_length, config.num_heads, config.head_dim)
    # Two arrays, because a buffer shared by keys and values could not be donated.
    return LayerState(keys=jnp.zeros(shape, config.dtype), values=jnp.zeros(shape, config.dtype), recurrent=recurrent)


def reset_rows(
    state: ModelState, initial: ModelState, start_of_document: RowMask, keep_recurrent: RowMask | None = None
) -> ModelState:
    """Replaces the state of the rows that start a document by the initial state.

    Args:
        state: the state after the previous segment.
        initial: the state at the start of a document.
        start_of_document: rows that start a document.
        keep_recurrent: rows of these that keep the recurrent states of their previous document, as constants: no
            gradient flows from one document into another. Their caches are replaced. None for no row.
    """
    if keep_recurrent is not None:
        pairs = zip(initial.layers, state.layers, strict=True)
        initial = ModelState(tuple(_with_recurrent(keep_recurrent, old, new) for new, old in pairs))
    return select_rows(start_of_document, initial, state)


def _with_recurrent(rows: RowMask, source: LayerState, target: LayerState) -> LayerState:
    """Returns `target` with the recurrent states of `source`, without their gradient, in some rows."""
    constant = jax.lax.stop_gradient(source.recurrent)
    return dataclasses.replace(target, recurrent=select_rows(rows, constant, target.recurrent))


def select_rows(rows: RowMask, new: _Tree, old: _Tree) -> _Tree:
    """Selects rows of two trees of arrays (B, ...): from `new` where `rows` is True, from `old` elsewhere."""

    def select(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(select, new, old)
