"""The LSTM layer: the baseline without attention, sequential over every token."""

import jax
import jax.numpy as jnp
from flax import nnx

from block_recurrent.config import ModelConfig
from block_recurrent.model.layers.norm import RMSNorm
from block_recurrent.model.ops.attention import KeyValues
from block_recurrent.model.ops.dropout import tiled_dropout
from block_recurrent.model.state import LayerState
from block_recurrent.typing import Activations, Key, States


class LSTMLayer(nnx.Module):
    """x + LSTM(norm(x)), with the LSTM cell of Flax.

    The recurrent state is two vectors of width D, `c` and `h` of the cell. Both are zeros at the start of a document.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.dtype, self.dropout_rate = jnp.dtype(config.dtype), config.dropout_rate
        self.norm = RMSNorm(config)
        self.cell = nnx.OptimizedLSTMCell(
            config.embed_dim, config.embed_dim, dtype=self.dtype, param_dtype=jnp.float32, rngs=rngs
        )

    def __call__(
        self, x: Activations, state: LayerState, feedback: KeyValues | None, dropout_key: Key | None
    ) -> tuple[Activations, LayerState]:
        """Runs a segment; see `TransformerLayer`. `feedback` must be None, because an LSTM has no attention."""
        assert feedback is None
        assert state.recurrent is not None
        carry = (state.recurrent[:, 0], state.recurrent[:, 1])
        carry, hidden = jax.lax.scan(self.cell, carry, jnp.swapaxes(self.norm(x), 0, 1))
        update = tiled_dropout(jnp.swapaxes(hidden, 0, 1), self.dropout_rate, dropout_key)
        return x + update, LayerState(keys=None, values=None, recurrent=jnp.stack(carry, axis=1))

    def initial_states(self, batch_size: int) -> States:
        """Returns `c` and `h` at the start of a document, (B, 2, D)."""
        return jnp.zeros((batch_size, 2, self.cell.hidden_features), self.dtype)
