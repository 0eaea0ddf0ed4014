"""The recurrent layer: a transformer layer over tokens and, in parallel, a recurrent cell over state vectors.

In each block, the states attend to themselves and to the tokens. The tokens attend to themselves and to the states
before the block (paper, section 3.1). Only the update of the states is sequential.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.model.layers.cells import CellWeights, GateMeans, make_cell, mean_over_blocks
from block_recurrent.model.layers.projections import Projected, Projections
from block_recurrent.model.layers.remat import apply_remat_policy
from block_recurrent.model.layers.transformer import TransformerLayer
from block_recurrent.model.ops.attention import KeyValues, attend
from block_recurrent.model.state import LayerState
from block_recurrent.typing import Activations, Key, States


class StateWeights(NamedTuple):
    """Fused weights of the state update: of its projections, and of its cell."""

    projections: Float[Array, "D NPH"]
    cell: CellWeights


class StateUpdate(nnx.Module):
    """The update of the states: one step per block."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        shape = (config.num_states, config.embed_dim)
        self.dtype = jnp.dtype(config.dtype)
        self.initial_state = nnx.Param(nnx.initializers.normal(stddev=0.1)(rngs.params(), shape))
        # Attention is equivariant: without these embeddings, equal initial states would stay equal.
        self.position_embeddings = nnx.Param(nnx.initializers.normal(stddev=1.0)(rngs.params(), shape))
        self.projections = Projections(config, cross_attention=True, rngs=rngs)
        self.cell = make_cell(config, rngs=rngs)

    def __call__(
        self, state: States, tokens: KeyValues, fused_weights: StateWeights | None = None
    ) -> tuple[States, tuple[KeyValues, GateMeans]]:
        """Runs one step.

        Args:
            state: the states before the block.
            tokens: keys and values (B, K, N, H) of the previous block and this one; all of them are visible.
            fused_weights: result of `fused_weights()`, if this is a step of a loop.

        Returns:
            The states after the block; the keys and values (B, S, N, H) of the states before the block, for the
            tokens, and the means of the gates.
        """
        fused_weights = fused_weights or self.fused_weights()
        projected = self.project(state, fused_weights.projections)
        state, gates = self.cell(state, self.attend(projected, tokens), fused_weights.cell)
        return state, (projected.kv, gates)

    def fused_weights(self) -> StateWeights:
        """Returns the concatenated weights of the projections and of the cell. A loop computes them once, before it."""
        return StateWeights(self.projections.fused_kernel(), self.cell.fused_weights())

    def project(self, state: States, fused_kernel: Float[Array, "D NPH"] | None = None) -> Projected:
        """Returns keys, values and queries of the states; `fused_kernel` as in `Projections`."""
        return self.projections(state, positions=self.position_embeddings[...], fused_kernel=fused_kernel)

    def attend(self, projected: Projected, tokens: KeyValues) -> Float[Array, "B S NH"]:
        """Returns the outputs (B, S, 2 * N * H) of attention to the states and to the tokens, concatenated."""
        assert projected.cross_queries is not None
        from_states = attend(projected.queries, projected.kv, self.projections.attention_scale[...])
        from_tokens = attend(projected.cross_queries, tokens, self.projections.cross_attention_scale[...])
        attended = jnp.concatenate([from_states, from_tokens], axis=-2)
        return attended.reshape(*attended.shape[:2], -1)

    def key_values(self, state: States) -> KeyValues:
        """Returns keys and values (B, S, N, H) of the states, for tokens of other layers (block feedback)."""
        return self.project(state).kv

    def initial(self, batch_size: int) -> States:
        """Returns the trained initial states, one copy per row."""
        initial = self.initial_state[...].astype(self.dtype)
        return jnp.broadcast_to(initial, (batch_size, *initial.shape))


class RecurrentLayer(nnx.Module):
    """A transformer layer over tokens and the update of the states, run in parallel.

    Only the tokens see an external memory; the states do not.
    """

    def __init__(self, config: ModelConfig, *, memory: bool, rngs: nnx.Rngs):
        self.config = config
        self.tokens = TransformerLayer(config, cross_attention=True, memory=memory, rngs=rngs)
        self.states = StateUpdate(config, rngs=rngs)

    def __call__(
        self, x: Activations, state: LayerState, dropout_key: Key | None
    ) -> tuple[Activations, LayerState, GateMeans]:
        """Runs a segment: a scan over blocks for the states, everything else for all blocks at once.

        The rematerialisation policy is applied to each of the three parts. Applied to the whole layer, it would run
        the scan twice in the backward pass.

        Args:
            x: activations; T is a multiple of W.
            state: the layer's state before the segment.
            dropout_key: None switches dropout off.

        Returns:
            The activations, the layer's state after the segment, and the means of the gates over its blocks.
        """
        project_key, attend_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        projected, visible = apply_remat_policy(self.config, self._project)(x, state, project_key)
        assert state.recurrent is not None
        update, fused_weights = apply_remat_policy(self.config, self.states), self.states.fused_weights()
        recurrent, (states, gates) = jax.lax.scan(
            lambda states, tokens: update(states, tokens, fused_weights), state.recurrent, _swap_block_axis(visible)
        )
        attend = apply_remat_policy(self.config, self.tokens.attend)
        x = attend(x, projected, state, _swap_block_axis(states), attend_key)
        state = dataclasses.replace(self.tokens.next_state(projected, state), recurrent=recurrent)
        return x, state, mean_over_blocks(gates)

    def _project(self, x: Activations, state: LayerState, dropout_key: Key | None) -> tuple[Projected, KeyValues]:
        projected = self.tokens.projections(x, dropout_key=dropout_key)
        return projected, self.tokens.visible(projected, state)

    def initial_states(self, batch_size: int) -> States:
        """Returns the states at the start of a document."""
        return self.states.initial(batch_size)


def _swap_block_axis(kv: KeyValues) -> KeyValues:
    """Swaps (B, C, ...) and (C, B, ...); scan needs the block axis first."""

    def swap(x: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.swapaxes(x, 0, 1)

    return KeyValues(swap(kv.keys), swap(kv.values))
