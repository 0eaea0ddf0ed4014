"""Cells: how a recurrent layer turns what its states have read into their next value (paper, figure 2).

Each cell takes the states (B, S, D) and what their self- and cross-attention read (B, S, 2 * N * H), and returns the
next states and the mean openness of its gates.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.layers.gate import make_gate
from block_recurrent.layers.linear import linear
from block_recurrent.layers.norm import RMSNorm
from block_recurrent.ops.gates import Gates, mix
from block_recurrent.typing import States

# By the gate's place in the cell, `attention` or `mlp`: means over rows, states and channels, float32.
GateMeans: TypeAlias = dict[str, Gates]


class Candidate(nnx.Module):
    """The value a gate mixes in: a projection, with bias and tanh as `ModelConfig.gate_equations` says."""

    def __init__(self, config: ModelConfig, hidden_dim: int, *, official_tanh: bool, rngs: nnx.Rngs):
        as_in_paper = config.gate_equations == "paper"
        self.tanh = config.gate == "lstm" if as_in_paper else official_tanh
        bias_init = nnx.initializers.zeros_init() if as_in_paper else None
        self.projection = linear(config, hidden_dim, config.embed_dim, rngs=rngs, bias_init=bias_init)

    def __call__(self, hidden: Float[Array, "B S F"]) -> States:
        """Computes the candidate from the hidden features."""
        z = self.projection(hidden)
        return jnp.tanh(z) if self.tanh else z


class GatedUpdate(nnx.Module):
    """A candidate and the gate that admits it; both look at the same hidden features."""

    def __init__(self, config: ModelConfig, hidden_dim: int, *, official_tanh: bool = False, rngs: nnx.Rngs):
        self.candidate = Candidate(config, hidden_dim, official_tanh=official_tanh, rngs=rngs)
        self.gate = make_gate(config, hidden_dim, rngs=rngs)

    def __call__(self, state: States, hidden: Float[Array, "B S F"]) -> tuple[States, Gates]:
        """Next state from the hidden features, and the gates' means."""
        gates = self.gate(hidden)
        forget, admit = (jnp.mean(gate.astype(jnp.float32)) for gate in gates)
        return mix(state, self.candidate(hidden), gates), Gates(forget, admit)


class SkipCell(nnx.Module):
    """Attention alone, gated; no feed-forward network."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention = GatedUpdate(config, 2 * config.num_heads * config.head_dim, rngs=rngs)

    def __call__(self, state: States, attended: Float[Array, "B S NH"]) -> tuple[States, GateMeans]:
        """Next state from what the states have read."""
        state, gates = self.attention(state, attended)
        return state, {"attention": gates}


class SingleCell(nnx.Module):
    """A feed-forward network straight on what was read, gated once: no projection, norm or residual before it."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.hidden = linear(config, 2 * config.num_heads * config.head_dim, config.mlp_dim, rngs=rngs)
        self.mlp = GatedUpdate(config, config.mlp_dim, official_tanh=True, rngs=rngs)

    def __call__(self, state: States, attended: Float[Array, "B S NH"]) -> tuple[States, GateMeans]:
        """Next state from what the states have read."""
        state, gates = self.mlp(state, jax.nn.relu(self.hidden(attended)))
        return state, {"mlp": gates}


class DualCell(nnx.Module):
    """A transformer layer whose two residual connections are gates."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention = GatedUpdate(config, 2 * config.num_heads * config.head_dim, rngs=rngs)
        self.norm = RMSNorm(config)
        self.hidden = linear(config, config.embed_dim, config.mlp_dim, rngs=rngs)
        self.mlp = GatedUpdate(config, config.mlp_dim, rngs=rngs)

    def __call__(self, state: States, attended: Float[Array, "B S NH"]) -> tuple[States, GateMeans]:
        """Next state from what the states have read."""
        state, attention_gates = self.attention(state, attended)
        state, mlp_gates = self.mlp(state, jax.nn.relu(self.hidden(self.norm(state))))
        return state, {"attention": attention_gates, "mlp": mlp_gates}


def make_cell(config: ModelConfig, *, rngs: nnx.Rngs) -> SkipCell | SingleCell | DualCell:
    """The configured cell."""
    cells = {"skip": SkipCell, "single": SingleCell, "dual": DualCell}
    return cells[config.cell](config, rngs=rngs)
