"""Recurrent cells: the update of a recurrent layer's states from their attention outputs (paper, figure 2).

`registry.CELLS.register` gives a class its name in `ModelConfig.cell`, here and outside the package.
"""

import abc
import itertools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from block_recurrent.config import ModelConfig
from block_recurrent.model.layers.gates import check_shapes, make_gate
from block_recurrent.model.layers.linear import linear
from block_recurrent.model.layers.norm import RMSNorm
from block_recurrent.model.ops.gates import Gates, mix
from block_recurrent.registry import CELLS, GATES
from block_recurrent.typing import States

# Gates by their place in the cell, such as `attention` or `mlp`: each (B, S, D), or (D,) for a constant gate.
CellGates: TypeAlias = dict[str, Gates]
# Means of `CellGates` over states and channels, float32: each (B,), or () for a constant gate. There is no mean over
# rows, because it would be an exchange between devices in every block.
GateMeans: TypeAlias = dict[str, Gates]


class FusedWeights(NamedTuple):
    """Weights of a candidate and of its gate's projections, concatenated along the output axis.

    With the lstm gate, one product replaces three. Concatenated outside the loop over blocks, the gradients of the
    kernels are also summed between devices as one array.
    """

    kernel: Float[Array, "F O"]
    bias: Float[Array, "O"]


CellWeights: TypeAlias = dict[str, FusedWeights | None]  # by place, as in CellGates; None without projections


class Candidate(nnx.Module):
    """The candidate of a gated update: a projection; `ModelConfig.gate_equations` decides its bias and tanh."""

    def __init__(self, config: ModelConfig, hidden_dim: int, *, official_tanh: bool, rngs: nnx.Rngs):
        as_in_paper = config.gate_equations == "paper"
        self.tanh = GATES.get(config.gate).paper_tanh if as_in_paper else official_tanh
        bias_init = nnx.initializers.zeros_init() if as_in_paper else None
        self.projection = linear(config, hidden_dim, config.embed_dim, rngs=rngs, bias_init=bias_init)

    def __call__(self, hidden: Float[Array, "B S F"]) -> States:
        """Returns the candidate for the hidden features."""
        return self.activate(self.projection(hidden))

    def activate(self, projected: States) -> States:
        """Applies the activation function, if any, to the output of the projection."""
        return jnp.tanh(projected) if self.tanh else projected


class GatedUpdate(nnx.Module):
    """A candidate and its gates, both computed from the same hidden features."""

    def __init__(self, config: ModelConfig, hidden_dim: int, *, official_tanh: bool = False, rngs: nnx.Rngs):
        self.gate_name = config.gate
        self.candidate = Candidate(config, hidden_dim, official_tanh=official_tanh, rngs=rngs)
        self.gate = make_gate(config, hidden_dim, rngs=rngs)

    @staticmethod
    def flops(config: ModelConfig, hidden_dim: int) -> int:
        """Returns the FLOPs of the candidate and its gates for one state vector."""
        return 2 * hidden_dim * config.embed_dim + GATES.get(config.gate).flops(config, hidden_dim)

    def fused_weights(self) -> FusedWeights | None:
        """Returns the concatenated weights of the candidate and its gate's projections; None without projections."""
        projections = self.gate.projections()
        if not projections:
            return None
        parts = (self.candidate.projection, *projections)
        biases = [jnp.zeros(part.out_features) if part.bias is None else part.bias[...] for part in parts]
        return FusedWeights(jnp.concatenate([part.kernel[...] for part in parts], axis=1), jnp.concatenate(biases))

    def __call__(
        self, state: States, hidden: Float[Array, "B S F"], fused_weights: FusedWeights | None = None
    ) -> tuple[States, Gates]:
        """Updates the state.

        Args:
            state: the state before the update.
            hidden: features from which the candidate and the gate's projections are computed.
            fused_weights: result of `fused_weights()`; computed here if None.

        Returns:
            The next state, and the gates: (B, S, D), or (D,) for a gate that depends on parameters alone.
        """
        fused_weights = fused_weights or self.fused_weights()
        if fused_weights is None:
            candidate, projected = self.candidate(hidden), ()
        else:
            candidate, projected = self._project(hidden, fused_weights)
        gates = self.gate.gates(state, *projected)
        check_shapes(self.gate_name, state, gates)
        return mix(state, candidate, gates), gates

    def _project(
        self, hidden: Float[Array, "B S F"], fused_weights: FusedWeights
    ) -> tuple[States, tuple[jax.Array, ...]]:
        """Returns the candidate and the outputs of the gate's projections, computed in one product."""
        kernel, bias = (part.astype(hidden.dtype) for part in fused_weights)
        rows = hidden.reshape(-1, hidden.shape[-1])  # flattened as in `layers.linear`
        product = (rows @ kernel + bias[None]).reshape(*hidden.shape[:-1], -1)
        widths = [part.out_features for part in (self.candidate.projection, *self.gate.projections())]
        candidate, *projected = jnp.split(product, list(itertools.accumulate(widths[:-1])), axis=-1)
        return self.candidate.activate(candidate), tuple(projected)


class Cell(nnx.Module):
    """Base class of the cells; `registry.CELLS.register` gives a class its name (docs/extending.md).

    A cell implements `update`, `fused_weights` and `flops`, and is created with `(config, *, rngs)`. It keeps each
    `GatedUpdate` in an attribute with the name of its place.
    """

    @abc.abstractmethod
    def update(
        self, state: States, attended: Float[Array, "B S NH"], fused_weights: CellWeights | None = None
    ) -> tuple[States, CellGates]:
        """Updates the states.

        Args:
            state: the states before the block.
            attended: outputs of the states' self- and cross-attention, concatenated: (B, S, 2 * N * H).
            fused_weights: result of `fused_weights()`. A loop over blocks computes it once, before the loop.

        Returns:
            The states after the block and the gates of the update.
        """

    @abc.abstractmethod
    def fused_weights(self) -> CellWeights:
        """Returns the fused weights of every gated update, by place."""

    @classmethod
    @abc.abstractmethod
    def flops(cls, config: ModelConfig) -> int:
        """Returns the FLOPs of the cell's matrix products for one state vector and block."""

    def __call__(
        self, state: States, attended: Float[Array, "B S NH"], fused_weights: CellWeights | None = None
    ) -> tuple[States, GateMeans]:
        """Updates the states; returns the states after the block and the means of the gates. See `update`."""
        state, gates = self.update(state, attended, fused_weights)
        return state, {place: _mean_gates(at_place) for place, at_place in gates.items()}


@CELLS.register("skip")
class SkipCell(Cell):
    """Gated attention without a feed-forward network."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention = GatedUpdate(config, 2 * config.num_heads * config.head_dim, rngs=rngs)

    def fused_weights(self) -> CellWeights:
        """See `Cell.fused_weights`."""
        return {"attention": self.attention.fused_weights()}

    @classmethod
    def flops(cls, config: ModelConfig) -> int:
        """See `Cell.flops`."""
        return GatedUpdate.flops(config, 2 * config.num_heads * config.head_dim)

    def update(
        self, state: States, attended: Float[Array, "B S NH"], fused_weights: CellWeights | None = None
    ) -> tuple[States, CellGates]:
        """See `Cell.update`."""
        state, gates = self.attention(state, attended, (fused_weights or {}).get("attention"))
        return state, {"attention": gates}


@CELLS.register("single")
class SingleCell(Cell):
    """A gated feed-forward network on the attention outputs, without a projection, norm or residual before it."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.hidden = linear(config, 2 * config.num_heads * config.head_dim, config.mlp_dim, rngs=rngs)
        self.mlp = GatedUpdate(config, config.mlp_dim, official_tanh=True, rngs=rngs)

    def fused_weights(self) -> CellWeights:
        """See `Cell.fused_weights`."""
        return {"mlp": self.mlp.fused_weights()}

    @classmethod
    def flops(cls, config: ModelConfig) -> int:
        """See `Cell.flops`."""
        attended = 2 * config.num_heads * config.head_dim
        return 2 * attended * config.mlp_dim + GatedUpdate.flops(config, config.mlp_dim)

    def update(
        self, state: States, attended: Float[Array, "B S NH"], fused_weights: CellWeights | None = None
    ) -> tuple[States, CellGates]:
        """See `Cell.update`."""
        state, gates = self.mlp(state, jax.nn.relu(self.hidden(attended)), (fused_weights or {}).get("mlp"))
        return state, {"mlp": gates}


@CELLS.register("dual")
class DualCell(Cell):
    """A transformer layer with gates in place of its two residual connections."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention = GatedUpdate(config, 2 * config.num_heads * config.head_dim, rngs=rngs)
        self.norm = RMSNorm(config)
        self.hidden = linear(config, config.embed_dim, config.mlp_dim, rngs=rngs)
        self.mlp = GatedUpdate(config, config.mlp_dim, rngs=rngs)

    def fused_weights(self) -> CellWeights:
        """See `Cell.fused_weights`."""
        return {"attention": self.attention.fused_weights(), "mlp": self.mlp.fused_weights()}

    @classmethod
    def flops(cls, config: ModelConfig) -> int:
        """See `Cell.flops`."""
        attention = GatedUpdate.flops(config, 2 * config.num_heads * config.head_dim)
        return attention + 2 * config.embed_dim * config.mlp_dim + GatedUpdate.flops(config, config.mlp_dim)

    def update(
        self, state: States, attended: Float[Array, "B S NH"], fused_weights: CellWeights | None = None
    ) -> tuple[States, CellGates]:
        """See `Cell.update`."""
        fused_weights = fused_weights or {}
        state, attention_gates = self.attention(state, attended, fused_weights.get("attention"))
        hidden = jax.nn.relu(self.hidden(self.norm(state)))
        state, mlp_gates = self.mlp(state, hidden, fused_weights.get("mlp"))
        return state, {"attention": attention_gates, "mlp": mlp_gates}


def _mean_gates(gates: Gates) -> Gates:
    axes = (-2, -1) if gates.forget.ndim == 3 else -1
    return Gates(*(jnp.mean(gate.astype(jnp.float32), axis=axes) for gate in gates))


def mean_over_blocks(gates: Any) -> Any:
    """Averages `GateMeans` over the blocks of a segment, which a scan stacked along the first axis."""
    return jax.tree.map(lambda means: jnp.mean(means, axis=0), gates)


def make_cell(config: ModelConfig, *, rngs: nnx.Rngs) -> Cell:
    """Creates the cell that `ModelConfig.cell` names.

    Raises:
        InputError: there is no cell of this name.
    """
    return CELLS.get(config.cell)(config, rngs=rngs)
