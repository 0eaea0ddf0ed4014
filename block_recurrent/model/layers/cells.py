"""Cells: how a recurrent layer turns what its states have read into their next value (paper, figure 2).

Each cell takes the states (B, S, D) and what their self- and cross-attention read (B, S, 2 * N * H), and returns the
next states and the mean openness of its gates. Inside a loop over blocks, `fused_weights()` is computed once, outside.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.model.layers.gates import FixedGate, make_gate
from block_recurrent.model.layers.linear import linear
from block_recurrent.model.layers.norm import RMSNorm
from block_recurrent.model.ops.gates import Gates, lstm_gates, mix
from block_recurrent.typing import States

# By the gate's place in the cell, `attention` or `mlp`: means over states and channels, float32, (B,), or () of a fixed
# gate. A mean over rows, too, would be an exchange between devices in every block.
GateMeans: TypeAlias = dict[str, Gates]


class FusedWeights(NamedTuple):
    """What a candidate and its lstm gates multiply the same features with, side by side.

    One product in place of three; joined outside the loop over blocks, also one gradient to add up between devices.
    """

    kernel: Float[Array, "F 3D"]
    bias: Float[Array, "3D"]


CellWeights: TypeAlias = dict[str, FusedWeights | None]  # by place, as in GateMeans; None for a fixed gate


class Candidate(nnx.Module):
    """The value a gate mixes in: a projection, with bias and tanh as `ModelConfig.gate_equations` says."""

    def __init__(self, config: ModelConfig, hidden_dim: int, *, official_tanh: bool, rngs: nnx.Rngs):
        as_in_paper = config.gate_equations == "paper"
        self.tanh = config.gate == "lstm" if as_in_paper else official_tanh
        bias_init = nnx.initializers.zeros_init() if as_in_paper else None
        self.projection = linear(config, hidden_dim, config.embed_dim, rngs=rngs, bias_init=bias_init)

    def __call__(self, hidden: Float[Array, "B S F"]) -> States:
        """Computes the candidate from the hidden features."""
        return self.activate(self.projection(hidden))

    def activate(self, z: States) -> States:
        """The candidate of what the projection gave."""
        return jnp.tanh(z) if self.tanh else z


class GatedUpdate(nnx.Module):
    """A candidate and the gate that admits it; both look at the same hidden features."""

    def __init__(self, config: ModelConfig, hidden_dim: int, *, official_tanh: bool = False, rngs: nnx.Rngs):
        self.candidate = Candidate(config, hidden_dim, official_tanh=official_tanh, rngs=rngs)
        self.gate = make_gate(config, hidden_dim, rngs=rngs)

    def fused_weights(self) -> FusedWeights | None:
        """The weights as one, for a candidate and gates that are computed together."""
        if isinstance(self.gate, FixedGate):
            return None
        parts = (self.candidate.projection, self.gate.forget_gate, self.gate.input_gate)
        biases = [jnp.zeros(part.out_features) if part.bias is None else part.bias[...] for part in parts]
        return FusedWeights(jnp.concatenate([part.kernel[...] for part in parts], axis=1), jnp.concatenate(biases))

    def candidate_and_gates(
        self, hidden: Float[Array, "B S F"], fused: FusedWeights | None = None
    ) -> tuple[States, Gates]:
        """What may come in, and how far it may; the gates are (B, S, D), or (D,) if fixed."""
        if isinstance(self.gate, FixedGate):
            return self.candidate(hidden), self.gate()
        fused = fused or self.fused_weights()
        assert fused is not None
        kernel, bias = (part.astype(hidden.dtype) for part in fused)
        z, forget, input_gate = jnp.split(hidden @ kernel + bias[None, None], 3, axis=-1)
        return self.candidate.activate(z), lstm_gates(forget, input_gate)

    def __call__(
        self, state: States, hidden: Float[Array, "B S F"], fused: FusedWeights | None = None
    ) -> tuple[States, Gates]:
        """Next state from the hidden features, and the gates' means."""
        candidate, gates = self.candidate_and_gates(hidden, fused)
        axes = (-2, -1) if gates.forget.ndim == hidden.ndim else -1
        means = Gates(*(jnp.mean(gate.astype(jnp.float32), axis=axes) for gate in gates))
        return mix(state, candidate, gates), means


class SkipCell(nnx.Module):
    """Attention alone, gated; no feed-forward network."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention = GatedUpdate(config, 2 * config.num_heads * config.head_dim, rngs=rngs)

    def fused_weights(self) -> CellWeights:
        """The weights that gates share with candidates."""
        return {"attention": self.attention.fused_weights()}

    def __call__(
        self, state: States, attended: Float[Array, "B S NH"], fused: CellWeights | None = None
    ) -> tuple[States, GateMeans]:
        """Next state from what the states have read."""
        state, gates = self.attention(state, attended, (fused or {}).get("attention"))
        return state, {"attention": gates}


class SingleCell(nnx.Module):
    """A feed-forward network straight on what was read, gated once: no projection, norm or residual before it."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.hidden = linear(config, 2 * config.num_heads * config.head_dim, config.mlp_dim, rngs=rngs)
        self.mlp = GatedUpdate(config, config.mlp_dim, official_tanh=True, rngs=rngs)

    def fused_weights(self) -> CellWeights:
        """The weights that gates share with candidates."""
        return {"mlp": self.mlp.fused_weights()}

    def __call__(
        self, state: States, attended: Float[Array, "B S NH"], fused: CellWeights | None = None
    ) -> tuple[States, GateMeans]:
        """Next state from what the states have read."""
        state, gates = self.mlp(state, jax.nn.relu(self.hidden(attended)), (fused or {}).get("mlp"))
        return state, {"mlp": gates}


class DualCell(nnx.Module):
    """A transformer layer whose two residual connections are gates."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention = GatedUpdate(config, 2 * config.num_heads * config.head_dim, rngs=rngs)
        self.norm = RMSNorm(config)
        self.hidden = linear(config, config.embed_dim, config.mlp_dim, rngs=rngs)
        self.mlp = GatedUpdate(config, config.mlp_dim, rngs=rngs)

    def fused_weights(self) -> CellWeights:
        """The weights that gates share with candidates."""
        return {"attention": self.attention.fused_weights(), "mlp": self.mlp.fused_weights()}

    def __call__(
        self, state: States, attended: Float[Array, "B S NH"], fused: CellWeights | None = None
    ) -> tuple[States, GateMeans]:
        """Next state from what the states have read."""
        fused = fused or {}
        state, attention_gates = self.attention(state, attended, fused.get("attention"))
        state, mlp_gates = self.mlp(state, jax.nn.relu(self.hidden(self.norm(state))), fused.get("mlp"))
        return state, {"attention": attention_gates, "mlp": mlp_gates}


def mean_over_blocks(gates: Any) -> Any:
    """`GateMeans` of a segment, from those of its blocks, stacked by a scan."""
    return jax.tree.map(lambda means: jnp.mean(means, axis=0), gates)


def make_cell(config: ModelConfig, *, rngs: nnx.Rngs) -> SkipCell | SingleCell | DualCell:
    """The configured cell."""
    cells = {"skip": SkipCell, "single": SingleCell, "dual": DualCell}
    return cells[config.cell](config, rngs=rngs)
