"""Attention between unit-length queries and keys, with a learned scale per head."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_NORM_EPSILON = 1e-6
_MASKED_LOGIT = -1e6
_NULL_LOGIT = -1000.0


class KeysValues(NamedTuple):
    """What a query reads: keys of unit length, and values."""

    keys: Float[Array, "*batch K N H"]
    values: Float[Array, "*batch K N H"]


def unit_length(x: Float[Array, "*batch N H"]) -> Float[Array, "*batch N H"]:
    """Scales each head's vector to length 1, reduced in float32."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(squares + _NORM_EPSILON)).astype(x.dtype)


def safe_softmax(logits: Float[Array, "*batch K"]) -> Float[Array, "*batch K"]:
    """Softmax with one more logit of -1000 whose weight is dropped: where everything is masked, all weights are 0."""
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True, initial=_NULL_LOGIT))
    weights = jnp.exp(logits - largest)
    return weights / (jnp.sum(weights, axis=-1, keepdims=True) + jnp.exp(_NULL_LOGIT - largest))


def attend(
    queries: Float[Array, "*batch Q N H"],
    read: KeysValues,
    scale: Float[Array, "N"],
    *,
    bias: Float[Array, "N Q K"] | None = None,
    mask: Bool[np.ndarray, "Q K"] | None = None,
    dropout: Float[Array, "N Q K"] | None = None,
) -> Float[Array, "*batch Q N H"]:
    """What each query reads. The bias is added before the scale, so it is scaled too (official code).

    Args:
        queries: of unit length, like the keys; there is no 1 / sqrt(H).
        read: the keys and values, with the queries' leading axes.
        scale: per head; its absolute value multiplies the logits.
        bias: added to the logits.
        mask: True where a query may see a key; everywhere if None.
        dropout: multiplies the attention weights.
    """
    logits = jnp.einsum("...qnh,...knh->...nqk", queries, read.keys, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias
    logits = logits * jnp.abs(scale)[:, None, None]
    if mask is not None:
        logits = jnp.where(mask, logits, _MASKED_LOGIT)
    weights = safe_softmax(logits)
    if dropout is not None:
        weights = weights * dropout
    return jnp.einsum("...nqk,...knh->...qnh", weights.astype(read.values.dtype), read.values)
