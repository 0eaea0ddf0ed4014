"""The ordinary layer: sliding-window self-attention, optional attention to recurrent states, feed-forward network."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from block_recurrent.config import ModelConfig
from block_recurrent.model.layers.linear import linear
from block_recurrent.model.layers.mlp import FeedForward
from block_recurrent.model.layers.projections import Projected, Projections
from block_recurrent.model.layers.remat import in_backward_order
from block_recurrent.model.ops.attention import KeyValues, attend
from block_recurrent.model.ops.blocks import half_blocks, merge_blocks, split_blocks, with_previous_block
from block_recurrent.model.ops.dropout import dropout_mask, keep_mask
from block_recurrent.model.ops.fused_attention import fused_attention
from block_recurrent.model.ops.memory import Memory, attend_to_memory, mix_with_memory, retrieve, write
from block_recurrent.model.ops.positions import NUM_BUCKETS, causal_mask, relative_bias, ring_bias
from block_recurrent.model.state import LayerState
from block_recurrent.typing import Activations, Key, TokenHeads

# Windows that are a multiple of this many tokens attend in half blocks: W / 2 queries see 1.5 W keys instead of W
# queries 2 W keys. For W = 256 that takes 0.7 times the time on CPU; for W = 128 it takes the same time.
_HALVED = 256

# Keys and values of a segment's tokens, and keys and values of the block before; None without a window.
_Tokens: TypeAlias = tuple[KeyValues, Float[Array, "B W N H"] | None, Float[Array, "B W N H"] | None]


class TransformerLayer(nnx.Module):
    """A transformer layer over all blocks of a segment at once; each block also sees the tokens of the previous one.

    With an external memory, the segment's queries also retrieve keys and values from it, once for the whole segment and
    before the segment is written into it: they see earlier segments, but no token of their own. The outputs of the two
    attentions are mixed by a gate per head. The memory is therefore not independent of the segment length.
    """

    def __init__(self, config: ModelConfig, *, cross_attention: bool, memory: bool, rngs: nnx.Rngs):
        self.config = config
        self.has_memory = memory
        self.projections = Projections(config, cross_attention=cross_attention, rngs=rngs)
        if memory:  # and no relative bias (official code)
            self.external_memory_bias = nnx.Param(jnp.zeros(config.num_heads))
        else:
            bias_init = nnx.initializers.normal(stddev=NUM_BUCKETS**-0.5)
            self.relative_bias = nnx.Param(bias_init(rngs.params(), (config.num_heads, NUM_BUCKETS)))
        attentions = 2 if cross_attention else 1
        dim = attentions * config.num_heads * config.head_dim
        self.output = linear(config, dim, config.embed_dim, rngs=rngs)
        self.mlp = FeedForward(config, rngs=rngs)

    def __call__(
        self, x: Activations, state: LayerState, feedback: KeyValues | None, dropout_key: Key | None
    ) -> tuple[Activations, LayerState]:
        """Runs a segment.

        Args:
            x: activations; T is a multiple of W.
            state: the layer's state before the segment.
            feedback: keys and values (B, C, S, N, H) of the recurrent state before each block; None without block
                feedback (paper, section 3.4).
            dropout_key: None switches dropout off.

        Returns:
            The activations and the layer's state after the segment.
        """
        x, projected = self.forward(x, state, feedback, dropout_key)
        return x, self.next_state(projected, state)

    def initial_states(self, batch_size: int) -> None:
        """Returns None: an ordinary layer has no recurrent states."""

    def forward(
        self, x: Activations, state: LayerState, feedback: KeyValues | None, dropout_key: Key | None
    ) -> tuple[Activations, Projected]:
        """Runs a segment and returns the projections of all its tokens instead of the next state; see `__call__`."""
        project_key, attend_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        projected = self.projections(x, dropout_key=project_key)
        return self.attend(x, projected, state, feedback, attend_key), projected

    def step(
        self,
        x: Float[Array, "B 1 D"],
        slot: Int[Array, "B"],
        ring: KeyValues,
        states: KeyValues | None,
        fused_kernel: Float[Array, "D NPH"] | None = None,
        memory: Memory | None = None,
    ) -> tuple[Float[Array, "B 1 D"], KeyValues]:
        """Runs one token of each row.

        Args:
            x: activations.
            slot: index in the ring of each row's token; see `ring_bias`.
            ring: keys and values (B, K, N, H) of the previous K = W tokens. Without a window K is the longest segment,
                and only the slots before the row's own slot hold tokens.
            states: keys and values (B, S, N, H) of the recurrent state before the block; None without states.
            fused_kernel: as in `Projections`.
            memory: the external memory of the segments before; None in a layer without one.

        Returns:
            The activations, and the token's keys and values (B, 1, N, H), which the caller writes into the ring.
        """
        projected = self.projections(x, fused_kernel=fused_kernel)
        num_slots = ring.keys.shape[1]
        written = None if self.config.window_length else (jnp.arange(num_slots)[None] < slot[:, None])[:, None, None]
        attended = attend(
            projected.queries,
            ring,
            self.projections.attention_scale[...],
            bias=self._ring_bias(slot, num_slots),
            mask=written,
        )
        if memory is not None:
            attended = self._add_memory(attended, projected, memory)
        blocks = None if states is None else KeyValues(states.keys[:, None], states.values[:, None])
        return self.mlp(self._add_attention(x, _concatenate_heads(attended), projected, blocks), None), projected.kv

    def visible(self, projected: Projected, state: LayerState) -> KeyValues:
        """Returns keys and values (B, C, K, N, H) of each block and, with a window, of the block before it."""
        return self._pairs_of_blocks((projected.kv, state.keys, state.values))

    def _pairs_of_blocks(self, tokens: _Tokens) -> KeyValues:
        (keys, values), cached_keys, cached_values = tokens
        if self.config.window_length is None:
            return KeyValues(keys[:, None], values[:, None])
        assert cached_keys is not None
        assert cached_values is not None
        return KeyValues(
            with_previous_block(split_blocks(keys, self.config.window_length), cached_keys),
            with_previous_block(split_blocks(values, self.config.window_length), cached_values),
        )

    def attend(
        self,
        x: Activations,
        projected: Projected,
        state: LayerState,
        states: KeyValues | None,
        dropout_key: Key | None,
    ) -> Activations:
        """Runs attention to tokens and, if given, to states (B, C, S, N, H), then the feed-forward network.

        Args:
            x: activations before the layer.
            projected: projections of all tokens of the segment.
            state: the layer's state before the segment, for the keys and values of the block before and the memory.
            states: keys and values of the recurrent states before each block.
            dropout_key: None switches dropout off.
        """
        mask_key, mlp_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        x = self._add_attention(x, self.self_attention(projected, state, mask_key), projected, states)
        (mlp,), x = in_backward_order(self.config, [self.mlp], x)
        return mlp(x, mlp_key)

    def next_state(self, projected: Projected, state: LayerState) -> LayerState:
        """Returns the state after the segment, without recurrent states.

        It has the keys and values of the last block, None without a window, and the memory with the segment's tokens.
        """
        (keys, values), window = projected.kv, self.config.window_length
        after = LayerState(keys=None, values=None, recurrent=None)
        if window is not None:
            after = LayerState(keys=keys[:, -window:], values=values[:, -window:], recurrent=None)
        return after.with_memory(write(state.memory, keys, values)) if self.has_memory else after

    def _add_attention(
        self, x: Activations, attended: Float[Array, "B T NH"], projected: Projected, states: KeyValues | None
    ) -> Activations:
        """Adds the outputs of self-attention and, if given states, of attention to them."""
        if states is not None:
            attended = jnp.concatenate([attended, self.cross_attention(projected, states)], axis=-1)
        return x + self.output(attended)

    def self_attention(
        self, projected: Projected, state: LayerState, dropout_key: Key | None
    ) -> Float[Array, "B T NH"]:
        """Returns the outputs of attention to tokens, and to the memory, before the output projection.

        The heads are concatenated.
        """
        attend_to_window = self._fused_attention if self.config.attention_kernel == "fused" else self._window_attention
        attended = attend_to_window(projected, state, dropout_key)
        if self.has_memory:
            attended = self._add_memory(attended, projected, state.memory)
        return _concatenate_heads(attended)

    def _window_attention(self, projected: Projected, state: LayerState, dropout_key: Key | None) -> TokenHeads:
        """Attends to the tokens of the window by ordinary operations."""
        rate = 0.0 if dropout_key is None else self.config.attention_dropout_rate
        window, length = self.config.window_length, projected.queries.shape[1]
        halved = window and window % _HALVED == 0 and not rate
        num_queries = (window // 2 if halved else window) if window else length
        num_keys = num_queries + window if window else length

        def visible(tokens: _Tokens) -> KeyValues:
            pairs = self._pairs_of_blocks(tokens)
            return KeyValues(*map(half_blocks, pairs)) if halved else pairs

        shape = (self.config.num_heads, num_queries, num_keys)
        attended = attend(
            split_blocks(projected.queries, num_queries),
            (projected.kv, state.keys, state.values),
            self.projections.attention_scale[...],
            visible=visible,
            bias=self._position_bias(num_queries, num_keys),
            mask=causal_mask(num_queries, num_keys, window),
            # One mask for all rows and blocks (official code).
            dropout=None if dropout_key is None or not rate else dropout_mask(dropout_key, rate, shape),
        )
        return merge_blocks(attended)

    def _fused_attention(self, projected: Projected, state: LayerState, dropout_key: Key | None) -> TokenHeads:
        """Computes `_window_attention` with the fused kernel."""
        assert state.keys is not None
        assert state.values is not None
        rate, window = self.config.attention_dropout_rate, state.keys.shape[1]
        shape = (self.config.num_heads, window, 2 * window)
        return fused_attention(
            projected.queries,
            projected.kv,
            KeyValues(state.keys, state.values),
            self.projections.attention_scale[...],
            self._bias_table(),
            kept=None if dropout_key is None or not rate else keep_mask(dropout_key, rate, shape),
            rate=rate,
        )

    def _bias_table(self) -> Float[Array, "N 32"]:
        return jnp.zeros((self.config.num_heads, NUM_BUCKETS)) if self.has_memory else self.relative_bias[...]

    def _position_bias(self, num_queries: int, num_keys: int) -> Float[Array, "N Q K"]:
        if self.has_memory:
            return jnp.zeros((self.config.num_heads, num_queries, num_keys))
        return relative_bias(self.relative_bias[...], num_queries, num_keys)

    def _ring_bias(self, slot: Int[Array, "B"], num_slots: int) -> Float[Array, "B N 1 K"]:
        if self.has_memory:
            return jnp.zeros((slot.shape[0], self.config.num_heads, 1, num_slots))
        return ring_bias(self.relative_bias[...], slot, num_slots)

    def _add_memory(self, attended: TokenHeads, projected: Projected, memory: Memory) -> TokenHeads:
        """Mixes the output of attention to tokens with that of attention to the memory."""
        retrieved = retrieve(projected.queries, memory, self.config.memory_neighbors, self.config.memory_retrieval)
        external = attend_to_memory(projected.queries, retrieved, self.projections.attention_scale[...])
        return mix_with_memory(attended, external, self.external_memory_bias[...])

    def cross_attention(self, projected: Projected, states: KeyValues) -> Float[Array, "B T NH"]:
        """Returns the outputs of attention to states (B, C, S, N, H), heads concatenated, before the projection."""
        assert projected.cross_queries is not None
        queries = split_blocks(projected.cross_queries, projected.cross_queries.shape[1] // states.keys.shape[1])
        return _concatenate_heads(merge_blocks(attend(queries, states, self.projections.cross_attention_scale[...])))


def _concatenate_heads(x: TokenHeads) -> Float[Array, "B T NH"]:
    return x.reshape(*x.shape[:2], -1)
