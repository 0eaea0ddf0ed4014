"""How a state vector takes in its candidate (paper, section 3.2)."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float


class Gates(NamedTuple):
    """What stays of a state vector and what comes in of its candidate, between 0 and 1 per channel."""

    forget: Float[Array, "..."]
    input: Float[Array, "..."]


def fixed_gates(bias: Float[Array, "D"]) -> Gates:
    """A learned constant per channel; what does not stay comes in: an exponential moving average of the candidates."""
    forget = jax.nn.sigmoid(bias)
    return Gates(forget, 1 - forget)


def lstm_gates(forget_logits: Float[Array, "B S D"], input_logits: Float[Array, "B S D"]) -> Gates:
    """Forget and input gates, offset by +1 and -1 so that an untrained gate rather remembers than overwrites."""
    return Gates(jax.nn.sigmoid(forget_logits + 1), jax.nn.sigmoid(input_logits - 1))


def mix(state: Float[Array, "B S D"], candidate: Float[Array, "B S D"], gates: Gates) -> Float[Array, "B S D"]:
    """The next state, in the state's dtype; gates per channel or per channel of each state vector."""
    forget, input_gate = (gate if gate.ndim == state.ndim else gate[None, None] for gate in gates)
    return (forget * state + input_gate * candidate).astype(state.dtype)
