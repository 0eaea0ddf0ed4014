"""Next-token cross-entropy, in nats, reduced in float32."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from block_recurrent.typing import Activations, Logits, Tokens


def cross_entropy(logits: Logits, targets: Tokens) -> Float[Array, "B T"]:
    """Nats of each target token."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def chunked_cross_entropy(
    logits: Callable[[Activations], Logits], features: Activations, targets: Tokens, chunk: int | None
) -> Float[Array, "B T"]:
    """Nats of each target token, without the logits of all tokens in memory at once.

    Args:
        logits: computes them; called again in the backward pass.
        features: (B, T, D), what it reads.
        targets: (B, T).
        chunk: tokens of a row at a time, a divisor of T; None takes all.
    """
    rows, length = targets.shape
    if chunk is None or chunk >= length:
        return cross_entropy(logits(features), targets)

    def nats(_: None, piece: tuple[Activations, Tokens]) -> tuple[None, Float[Array, "B C"]]:
        return None, cross_entropy(logits(piece[0]), piece[1])

    def divide(x: Array) -> Array:
        return jnp.swapaxes(x.reshape(rows, -1, chunk, *x.shape[2:]), 0, 1)

    _, pieces = jax.lax.scan(jax.checkpoint(nats), None, (divide(features), divide(targets)))
    return jnp.swapaxes(pieces, 0, 1).reshape(rows, length)
