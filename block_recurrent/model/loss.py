"""Next-token cross-entropy, in nats, computed in float32."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from block_recurrent.typing import Activations, Logits, Tokens


def cross_entropy(logits: Logits, targets: Tokens) -> Float[Array, "B T"]:
    """Returns the loss of each target token, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets)


def chunked_cross_entropy(
    logits: Callable[[Activations], Logits], hidden_states: Activations, targets: Tokens, chunk: int | None
) -> Float[Array, "B T"]:
    """Returns the loss of each target token, in nats, with the logits of one chunk in memory at a time.

    Args:
        logits: computes the logits of hidden states; called again in the backward pass.
        hidden_states: (B, T, D).
        targets: (B, T).
        chunk: tokens of a row in one chunk, a divisor of T; None computes the logits of all tokens at once.
    """
    rows, length = targets.shape
    if chunk is None or chunk >= length:
        return cross_entropy(logits(hidden_states), targets)

    def chunk_losses(_: None, inputs: tuple[Activations, Tokens]) -> tuple[None, Float[Array, "B T"]]:
        return None, cross_entropy(logits(inputs[0]), inputs[1])

    def split(x: Array) -> Array:
        return jnp.swapaxes(x.reshape(rows, -1, chunk, *x.shape[2:]), 0, 1)

    _, losses = jax.lax.scan(jax.checkpoint(chunk_losses), None, (split(hidden_states), split(targets)))
    return jnp.swapaxes(losses, 0, 1).reshape(rows, length)
