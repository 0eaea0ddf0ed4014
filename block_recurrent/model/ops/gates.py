"""Gates that mix a state vector with its candidate (paper, section 3.2)."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float


class Gates(NamedTuple):
    """Factors between 0 and 1, per channel.

    Attributes:
        forget: factor of the state.
        input: factor of the candidate.
    """

    forget: Float[Array, "..."]
    input: Float[Array, "..."]


def fixed_gates(bias: Float[Array, "D"]) -> Gates:
    """Returns constant gates whose sum is 1: the state is an exponential moving average of the candidates."""
    forget = jax.nn.sigmoid(bias)
    return Gates(forget, 1 - forget)


def lstm_gates(forget_logits: Float[Array, "B S D"], input_logits: Float[Array, "B S D"]) -> Gates:
    """Returns lstm gates; the logits are shifted by +1 and -1 so that an untrained gate keeps most of the state."""
    return Gates(jax.nn.sigmoid(forget_logits + 1), jax.nn.sigmoid(input_logits - 1))


def mix(state: Float[Array, "B S D"], candidate: Float[Array, "B S D"], gates: Gates) -> Float[Array, "B S D"]:
    """Returns forget * state + input * candidate in the dtype of the state; the gates are (B, S, D) or (D,)."""
    forget, input_gate = (gate if gate.ndim == state.ndim else gate[None, None] for gate in gates)
    return (forget * state + input_gate * candidate).astype(state.dtype)
