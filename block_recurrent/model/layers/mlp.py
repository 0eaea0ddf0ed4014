"""The feed-forward network of a layer over tokens."""

from flax import nnx

from block_recurrent.config import ModelConfig
from block_recurrent.model.layers.linear import linear
from block_recurrent.model.layers.norm import RMSNorm
from block_recurrent.model.ops.dropout import tiled_dropout
from block_recurrent.model.ops.relu import relu_product
from block_recurrent.typing import Activations, Key


class FeedForward(nnx.Module):
    """x + relu(norm(x) W_hidden) W_output."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.dropout_rate = config.dropout_rate
        self.norm = RMSNorm(config)
        self.hidden = linear(config, config.embed_dim, config.mlp_dim, rngs=rngs)
        self.output = linear(config, config.mlp_dim, config.embed_dim, rngs=rngs)

    def __call__(self, x: Activations, dropout_key: Key | None) -> Activations:
        """Returns `x` plus the output of the network, with dropout on the output."""
        hidden = self.hidden(self.norm(x))
        rows = hidden.reshape(-1, hidden.shape[-1])  # flattened as in `linear`
        update = relu_product(rows, self.output.kernel[...].astype(hidden.dtype)).reshape(x.shape)
        return x + tiled_dropout(update, self.dropout_rate, dropout_key)
