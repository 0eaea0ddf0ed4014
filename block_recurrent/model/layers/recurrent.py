"""The recurrent layer: a transformer layer over tokens, and a recurrent cell over state vectors beside it.

Per block, the states read themselves and the tokens; the tokens read themselves and the states as they were before the
block (paper, section 3.1). Only the states' side is sequential.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.model.layers.cells import CellWeights, GateMeans, make_cell, mean_over_blocks
from block_recurrent.model.layers.projections import Projected, Projections
from block_recurrent.model.layers.remat import rematerialised
from block_recurrent.model.layers.transformer import TransformerLayer
from block_recurrent.model.ops.attention import KeyValues, attend
from block_recurrent.model.state import LayerState
from block_recurrent.typing import Activations, Key, States


class StateUpdate(nnx.Module):
    """The states' side: one step per block."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        shape = (config.num_states, config.embed_dim)
        self.dtype = jnp.dtype(config.dtype)
        self.initial_state = nnx.Param(nnx.initializers.normal(stddev=0.1)(rngs.params(), shape))
        # Without these, equal initial states would stay equal: attention cannot tell them apart.
        self.position_embeddings = nnx.Param(nnx.initializers.normal(stddev=1.0)(rngs.params(), shape))
        self.projections = Projections(config, cross_attention=True, rngs=rngs)
        self.cell = make_cell(config, rngs=rngs)

    def __call__(
        self, state: States, tokens: KeyValues, fused: CellWeights | None = None
    ) -> tuple[States, tuple[KeyValues, GateMeans]]:
        """One step.

        Args:
            state: the states before the block.
            tokens: keys and values (B, K, N, H) of the previous block and this one; no masks.
            fused: the cell's `fused_weights()`, where this is a step of a loop.

        Returns:
            The states after the block; the keys and values (B, S, N, H) of the states before it, for the tokens, and
            the means of the gates.
        """
        own = self.projections(state, positions=self.position_embeddings[...])
        assert own.cross_queries is not None
        from_states = attend(own.queries, own.kv, self.projections.attention_scale[...])
        from_tokens = attend(own.cross_queries, tokens, self.projections.cross_attention_scale[...])
        attended = jnp.concatenate([from_states, from_tokens], axis=-2)
        state, gates = self.cell(state, attended.reshape(*state.shape[:2], -1), fused)
        return state, (own.kv, gates)

    def key_values(self, state: States) -> KeyValues:
        """Keys and values (B, S, N, H) of the states, for tokens of other layers (block feedback)."""
        return self.projections(state, positions=self.position_embeddings[...]).kv

    def initial(self, batch_size: int) -> States:
        """The trained initial states, one copy per row."""
        initial = self.initial_state[...].astype(self.dtype)
        return jnp.broadcast_to(initial, (batch_size, *initial.shape))


class RecurrentLayer(nnx.Module):
    """Tokens and states, updated in parallel."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.tokens = TransformerLayer(config, cross_attention=True, rngs=rngs)
        self.states = StateUpdate(config, rngs=rngs)

    def __call__(
        self, x: Activations, state: LayerState, dropout_key: Key | None
    ) -> tuple[Activations, LayerState, GateMeans]:
        """Runs a segment: a scan over blocks for the states, everything else for all blocks at once.

        Its three parts are rematerialised one by one: around all of them, the backward pass would run the scan twice.
        Args and returns are those of `TransformerLayer`, and the means of the gates over the segment's blocks.
        """
        project_key, attend_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        projected, visible = rematerialised(self.config, self._project)(x, state, project_key)
        assert state.recurrent is not None
        update, fused = rematerialised(self.config, self.states), self.states.cell.fused_weights()
        recurrent, (states, gates) = jax.lax.scan(
            lambda states, tokens: update(states, tokens, fused), state.recurrent, _swap_block_axis(visible)
        )
        attend = rematerialised(self.config, self.tokens.attend)
        x = attend(x, projected, visible, _swap_block_axis(states), attend_key)
        state = dataclasses.replace(self.tokens.next_cache(projected), recurrent=recurrent)
        return x, state, mean_over_blocks(gates)

    def _project(self, x: Activations, state: LayerState, dropout_key: Key | None) -> tuple[Projected, KeyValues]:
        projected = self.tokens.projections(x, dropout_key=dropout_key)
        return projected, self.tokens.visible(projected, state)

    def initial_states(self, batch_size: int) -> States:
        """The states at the start of a document."""
        return self.states.initial(batch_size)


def _swap_block_axis(read: KeyValues) -> KeyValues:
    """(B, C, ...) to (C, B, ...), as scan wants it, and back."""

    def swap(x: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.swapaxes(x, 0, 1)

    return KeyValues(swap(read.keys), swap(read.values))
