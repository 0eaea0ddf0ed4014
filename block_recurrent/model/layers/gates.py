"""Gate modules: the learned parameters of the functions in `ops.gates`."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.model.layers.linear import Linear, linear
from block_recurrent.model.ops.gates import Gates, fixed_gates, lstm_gates
from block_recurrent.registry import GATES
from block_recurrent.typing import States

_BIAS_INIT = nnx.initializers.normal(stddev=0.1)


class Gate(nnx.Module):
    """Base class of the gates; `registry.GATES.register` gives a class its name (docs/extending.md).

    A gate implements `gates` and `flops`. `GatedUpdate` creates it with the arguments of `__init__`.

    Attributes:
        paper_tanh: whether the candidate has a tanh with `ModelConfig.gate_equations = "paper"`.

    Args:
        config: the model.
        hidden_dim: features of the candidate's input.
        rngs: random numbers for initialisation, from the stream `params`.
    """

    paper_tanh: ClassVar[bool] = False

    def __init__(self, config: ModelConfig, hidden_dim: int, *, rngs: nnx.Rngs):
        pass  # a gate without parameters

    def projections(self) -> tuple[Linear, ...]:
        """Returns dense layers of the candidate's input; they are computed with the candidate in one product."""
        return ()

    @abc.abstractmethod
    def gates(self, state: States, *projected: jax.Array) -> Gates:
        """Returns the gates of one update.

        Args:
            state: (B, S, D), the states before the update.
            projected: outputs of `projections()`, each (B, S, features).

        Returns:
            Forget and input gate, each (B, S, D), or each (D,) if they depend on parameters alone.
        """

    @classmethod
    @abc.abstractmethod
    def flops(cls, config: ModelConfig, hidden_dim: int) -> int:
        """Returns the FLOPs of the gate's matrix products for one state vector, without those of the candidate."""

    @classmethod
    def log_forget(cls, weights: Mapping[str, Any]) -> np.ndarray | None:
        """Returns ln of the forget gate from the parameters: (D,) float64, or (1,) if all channels have the same.

        None, as here, means that the gate depends on the text. Half-lives during training are computed from it.

        Args:
            weights: the gate's parameters by name.
        """
        return None


@GATES.register("fixed")
class FixedGate(Gate):
    """A gate that depends only on its learned bias."""

    def __init__(self, config: ModelConfig, hidden_dim: int, *, rngs: nnx.Rngs):
        self.bias = nnx.Param(_bias_init(config.gate_init_bias)(rngs.params(), (config.embed_dim,)))

    def gates(self, state: States, *projected: jax.Array) -> Gates:
        """Returns the gates (D,)."""
        return fixed_gates(self.bias[...])

    @classmethod
    def flops(cls, config: ModelConfig, hidden_dim: int) -> int:
        """Returns 0: there is no product."""
        return 0

    @classmethod
    def log_forget(cls, weights: Mapping[str, Any]) -> np.ndarray:
        """Returns ln sigmoid(bias), also where sigmoid(bias) rounds to 1."""
        return -np.logaddexp(0, -np.asarray(weights["bias"], np.float64))


@GATES.register("lstm")
class LSTMGate(Gate):
    """Forget and input gates, computed from the candidate's hidden features and not from the state."""

    paper_tanh = True

    def __init__(self, config: ModelConfig, hidden_dim: int, *, rngs: nnx.Rngs):
        mean = config.gate_init_bias
        # Opposite biases: with `lstm_gates`' shifts of +1 and -1, the two gates sum to 1, as those of the fixed gate.
        self.forget_gate = _logits(config, hidden_dim, mean, rngs=rngs)
        self.input_gate = _logits(config, hidden_dim, None if mean is None else -mean, rngs=rngs)

    def projections(self) -> tuple[Linear, ...]:
        """Returns the projections that compute the logits of the two gates."""
        return self.forget_gate, self.input_gate

    def gates(self, state: States, *projected: jax.Array) -> Gates:
        """Returns the gates (B, S, D)."""
        forget_logits, input_logits = projected
        return lstm_gates(forget_logits, input_logits)

    @classmethod
    def flops(cls, config: ModelConfig, hidden_dim: int) -> int:
        """Returns the FLOPs of two products as large as the candidate's."""
        return 2 * 2 * hidden_dim * config.embed_dim


def make_gate(config: ModelConfig, hidden_dim: int, *, rngs: nnx.Rngs) -> Gate:
    """Creates the gate that `ModelConfig.gate` names, for a candidate with `hidden_dim` input features.

    Raises:
        InputError: there is no gate of this name.
    """
    return GATES.get(config.gate)(config, hidden_dim, rngs=rngs)


def check_shapes(name: str, state: States, gates: Gates) -> None:
    """Checks the shapes of the gates that `Gate.gates` returned, while the program is traced.

    Args:
        name: name of the gate.
        state: (B, S, D), the states before the update.
        gates: the result.

    Raises:
        InputError: a shape is neither (B, S, D) nor (D,), or the two differ.
    """
    shapes = {jnp.shape(gate) for gate in gates}
    if len(shapes) != 1 or not shapes <= {state.shape, state.shape[-1:]}:
        found = " and ".join(str(jnp.shape(gate)) for gate in gates)
        raise InputError(
            f"ModelConfig.gate = {name!r}: its class returned gates of shape {found}; both must have the shape "
            f"of the states, {state.shape}, or of their channels, {state.shape[-1:]}"
        )


def _logits(config: ModelConfig, hidden_dim: int, bias_mean: float | None, *, rngs: nnx.Rngs) -> Linear:
    """Creates the projection that computes the logits of an lstm gate."""
    bias_init = _bias_init(bias_mean)
    return linear(config, hidden_dim, config.embed_dim, rngs=rngs, init_scale=0.1, bias_init=bias_init)


def _bias_init(mean: float | None) -> nnx.Initializer:
    """Returns the initialiser of a gate's bias: the official code's distribution, moved to `mean`."""
    if mean is None:
        return _BIAS_INIT
    return lambda *arguments: mean + _BIAS_INIT(*arguments)
