"""How a state vector takes in its candidate (paper, section 3.2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def fixed_gate(
    state: Float[Array, "B S D"], candidate: Float[Array, "B S D"], bias: Float[Array, "D"]
) -> Float[Array, "B S D"]:
    """A learned, constant convex combination per channel: an exponential moving average of the candidates."""
    keep = jnp.broadcast_to(jax.nn.sigmoid(bias), state.shape)
    return keep * state + (1 - keep) * candidate


def lstm_gate(
    state: Float[Array, "B S D"],
    candidate: Float[Array, "B S D"],
    forget_logits: Float[Array, "B S D"],
    input_logits: Float[Array, "B S D"],
) -> Float[Array, "B S D"]:
    """Forget and input gates, offset by +1 and -1 so that an untrained gate rather remembers than overwrites."""
    forget = jax.nn.sigmoid(forget_logits + 1)
    admit = jax.nn.sigmoid(input_logits - 1)
    return forget * state + admit * candidate
