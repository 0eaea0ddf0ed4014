"""Gates: learned parameters of `ops.gates`."""

from flax import nnx

from block_recurrent.config import ModelConfig
from block_recurrent.model.layers.linear import linear
from block_recurrent.model.ops.gates import Gates, fixed_gates

_BIAS_INIT = nnx.initializers.normal(stddev=0.1)


class FixedGate(nnx.Module):
    """A gate that depends on nothing but its learned bias."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.bias = nnx.Param(_BIAS_INIT(rngs.params(), (config.embed_dim,)))

    def __call__(self) -> Gates:
        """The gates (D,)."""
        return fixed_gates(self.bias[...])


class LSTMGate(nnx.Module):
    """Forget and input gates computed from what the candidate is computed from (not from the state), and with it."""

    def __init__(self, config: ModelConfig, hidden_dim: int, *, rngs: nnx.Rngs):
        self.forget_gate = linear(config, hidden_dim, config.embed_dim, rngs=rngs, init_scale=0.1, bias_init=_BIAS_INIT)
        self.input_gate = linear(config, hidden_dim, config.embed_dim, rngs=rngs, init_scale=0.1, bias_init=_BIAS_INIT)


def make_gate(config: ModelConfig, hidden_dim: int, *, rngs: nnx.Rngs) -> FixedGate | LSTMGate:
    """The configured gate, for a candidate computed from `hidden_dim` features."""
    if config.gate == "fixed":
        return FixedGate(config, rngs=rngs)
    return LSTMGate(config, hidden_dim, rngs=rngs)
