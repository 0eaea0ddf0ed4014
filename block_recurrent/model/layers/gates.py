"""Gate modules: the learned parameters of the functions in `ops.gates`."""

from flax import nnx

from block_recurrent.config import ModelConfig
from block_recurrent.errors import InputError
from block_recurrent.model.layers.linear import linear
from block_recurrent.model.ops.gates import Gates, fixed_gates

_BIAS_INIT = nnx.initializers.normal(stddev=0.1)


class FixedGate(nnx.Module):
    """A gate that depends only on its learned bias."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.bias = nnx.Param(_BIAS_INIT(rngs.params(), (config.embed_dim,)))

    def __call__(self) -> Gates:
        """Returns the gates (D,)."""
        return fixed_gates(self.bias[...])


class LSTMGate(nnx.Module):
    """Forget and input gates, computed from the candidate's hidden features and not from the state.

    There is no `__call__`: `GatedUpdate` computes the gates and the candidate in one product.
    """

    def __init__(self, config: ModelConfig, hidden_dim: int, *, rngs: nnx.Rngs):
        self.forget_gate = linear(config, hidden_dim, config.embed_dim, rngs=rngs, init_scale=0.1, bias_init=_BIAS_INIT)
        self.input_gate = linear(config, hidden_dim, config.embed_dim, rngs=rngs, init_scale=0.1, bias_init=_BIAS_INIT)


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
