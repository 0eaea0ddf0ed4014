"""The model state: Transformer-XL caches, recurrent states and external memories, as one pytree.

It is carried from segment to segment. Every call takes the state as an argument and returns the next one; modules hold
none. The state is an input of each training step, so no gradient flows from one step into the previous one. Within a
step of several segments (`TrainConfig.backprop_segments`), gradients flow from segment to segment, except through
external memories.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey
from jaxtyping import Array, Int

from block_recurrent.config import ModelConfig
from block_recurrent.model.ops.memory import Memory, empty_memory
from block_recurrent.typing import CacheHeads, MemoryHeads, RowMask, States

_Tree = TypeVar("_Tree")


_PARTS = ("keys", "values", "recurrent")
_MEMORY_PARTS = ("memory_keys", "memory_values", "memory_index")


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class LayerState:
    """State of one layer, in the dtype of the activations except `memory_index`.

    Attributes:
        keys: (B, W, N, H) unit-length keys of the last block; None without a window and in an LSTM layer.
        values: (B, W, N, H) values of the last block; None where `keys` is None.
        recurrent: (B, S, D) state vectors of a recurrent layer; (B, 2, D) `c` and `h` of an LSTM layer; None in an
            ordinary layer.
        memory_keys: (B, N, M, H) keys of earlier segments in a layer with an external memory; None in other layers, so
            that they have no additional leaf. No gradient flows through a memory.
        memory_values: (B, N, M, H) their values; None where `memory_keys` is None.
        memory_index: (B,) int32, number of tokens written since the document's start; None where `memory_keys` is None.
        has_memory: True if the layer has an external memory.
    """

    keys: CacheHeads | None
    values: CacheHeads | None
    recurrent: States | None
    memory_keys: MemoryHeads | None = None
    memory_values: MemoryHeads | None = None
    memory_index: Int[Array, "B"] | None = None
    has_memory: bool = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "has_memory", self.memory_keys is not None)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """Returns the children of the pytree node and their names.

        Without a memory there is no child for it, not even None: checkpoints record None, so those of earlier versions
        would have another structure.
        """
        names = _PARTS + _MEMORY_PARTS if self.has_memory else _PARTS
        return [(GetAttrKey(name), getattr(self, name)) for name in names], names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], children: Iterable[Any]) -> "LayerState":
        """Returns the state with these children; the inverse of `tree_flatten_with_keys`."""
        state = cls(**dict(zip(names, children, strict=True)))
        # JAX also puts None in place of arrays, as the layouts of a jitted function.
        object.__setattr__(state, "has_memory", len(names) > len(_PARTS))
        return state

    @property
    def memory(self) -> Memory:
        """The external memory; only in a layer with one."""
        assert self.memory_keys is not None
        assert self.memory_values is not None
        assert self.memory_index is not None
        return Memory(self.memory_keys, self.memory_values, self.memory_index)

    def with_memory(self, memory: Memory) -> "LayerState":
        """Returns this state with another external memory."""
        return dataclasses.replace(
            self, memory_keys=memory.keys, memory_values=memory.values, memory_index=memory.written
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModelState:
    """State of all layers.

    Attributes:
        layers: one state per layer, from the first layer to the last.
    """

    layers: tuple[LayerState, ...]


def init_layer_state(
    config: ModelConfig, batch_size: int, recurrent: States | None, *, memory: bool = False
) -> LayerState:
    """Returns a layer's state at the start of a document.

    Args:
        config: the model.
        batch_size: rows.
        recurrent: the layer's initial recurrent state; None in an ordinary layer.
        memory: whether the layer has an external memory.

    Returns:
        The recurrent state; with a window, caches of zeros; the external memory, zeros too. Queries attend to these
        zeros (official code).
    """
    state = LayerState(keys=None, values=None, recurrent=recurrent)
    if config.window_length is not None:
        shape = (batch_size, config.window_length, config.num_heads, config.head_dim)
        # Two arrays, because a buffer shared by keys and values could not be donated.
        caches = {name: jnp.zeros(shape, config.dtype) for name in ("keys", "values")}
        state = dataclasses.replace(state, **caches)
    if not memory:
        return state
    sizes = config.num_heads, config.memory_size, config.head_dim
    return state.with_memory(empty_memory(batch_size, *sizes, config.dtype))


def reset_rows(
    state: ModelState, initial: ModelState, start_of_document: RowMask, keep_recurrent: RowMask | None = None
) -> ModelState:
    """Replaces the state of the rows that start a document by the initial state.

    Args:
        state: the state after the previous segment.
        initial: the state at the start of a document.
        start_of_document: rows that start a document.
        keep_recurrent: rows of these that keep the recurrent states of their previous document, as constants: no
            gradient flows from one document into another. Their caches and memories are replaced. None for no row.
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
