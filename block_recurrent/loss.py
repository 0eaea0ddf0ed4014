"""Next-token cross-entropy, in nats, reduced in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from block_recurrent.typing import Logits, Tokens


def cross_entropy(logits: Logits, targets: Tokens) -> Float[Array, "B T"]:
    """Nats of each target token."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
