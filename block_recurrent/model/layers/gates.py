"""Gate modules: the learned parameters of the functions in `ops.gates`."""

from flax import nnx

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.model.layers.linear import Linear, linear
from block_recurrent.model.ops.gates import Gates, fixed_gates

_BIAS_INIT = nnx.initializers.normal(stddev=0.1)


class FixedGate(nnx.Module):
    """A gate that depends only on its learned bias."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.bias = nnx.Param(_bias_init(config.gate_init_bias)(rngs.params(), (config.embed_dim,)))

    def __call__(self) -> Gates:
        """Returns the gates (D,)."""
        return fixed_gates(self.bias[...])


class LSTMGate(nnx.Module):
    """Forget and input gates, computed from the candidate's hidden features and not from the state.

    There is no `__call__`: `GatedUpdate` computes the gates and the candidate in one product.
    """

    def __init__(self, config: ModelConfig, hidden_dim: int, *, rngs: nnx.Rngs):
        mean = config.gate_init_bias
        # Opposite biases: with `lstm_gates`' shifts of +1 and -1, the two gates sum to 1, as those of the fixed gate.
        self.forget_gate = _logits(config, hidden_dim, mean, rngs=rngs)
        self.input_gate = _logits(config, hidden_dim, None if mean is None else -mean, rngs=rngs)


def make_gate(config: ModelConfig, hidden_dim: int, *, rngs: nnx.Rngs) -> FixedGate | LSTMGate:
    """Creates the gate that `ModelConfig.gate` names, for a candidate with `hidden_dim` input features.

    Raises:
        InputError: there is no gate of this name.
    """
    if config.gate == "fixed":
        return FixedGate(config, rngs=rngs)
    if config.gate == "lstm":
        return LSTMGate(config, hidden_dim, rngs=rngs)
    raise InputError(f"ModelConfig.gate = {config.gate!r}: must be one of fixed, lstm")


def _logits(config: ModelConfig, hidden_dim: int, bias_mean: float | None, *, rngs: nnx.Rngs) -> Linear:
    """Creates the projection that computes the logits of an lstm gate."""
    bias_init = _bias_init(bias_mean)
    return linear(config, hidden_dim, config.embed_dim, rngs=rngs, init_scale=0.1, bias_init=bias_init)


def _bias_init(mean: float | None) -> nnx.Initializer:
    """Returns the initialiser of a gate's bias: the official code's distribution, moved to `mean`."""
    if mean is None:
        return _BIAS_INIT
    return lambda *arguments: mean + _BIAS_INIT(*arguments)
