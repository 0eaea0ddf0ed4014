"""Attention between unit-length queries and keys, with a learned scale per head."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_NORM_EPSILON = 1e-6
_MASKED_LOGIT = -1e6
_NULL_LOGIT = -1000.0


class KeyValues(NamedTuple):
    """What a query reads: keys of unit length, and values."""

    keys: Float[Array, "*batch K N H"]
    values: Float[Array, "*batch K N H"]


def unit_length(x: Float[Array, "*batch N H"]) -> Float[Array, "*batch N H"]:
    """Scales each head's vector to length 1, reduced in float32."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(squares + _NORM_EPSILON)).astype(x.dtype)


def attend(
    queries: Float[Array, "*batch Q N H"],
    read: KeyValues,
    scale: Float[Array, "N"],
    *,
    bias: Float[Array, "*rows N Q K"] | None = None,
    mask: Bool[np.ndarray, "Q K"] | Bool[Array, "*rows 1 Q K"] | None = None,
    dropout: Float[Array, "N Q K"] | None = None,
) -> Float[Array, "*batch Q N H"]:
    """What each query reads: softmax(|scale| * (queries . keys + bias)) values.

    The softmax has one more logit, -1000, whose weight is dropped: a query that may see nothing reads zero. Scale, bias
    and mask are put together before they meet the logits, and weights are normalised after they have met the values:
    logits and weights are by far the largest arrays of the model.

    Args:
        queries: of unit length, like the keys; there is no 1 / sqrt(H).
        read: the keys and values, with the queries' leading axes.
        scale: per head; its absolute value multiplies the logits, the bias included (official code).
        bias: added to the logits; with leading axes, a row's own (decoding, where each row stands elsewhere).
        mask: of a bias, True where a query may see a key; everywhere if None.
        dropout: multiplies the attention weights.
    """
    scale = jnp.abs(scale)
    scaled = (queries * jnp.broadcast_to(scale[:, None], queries.shape)).astype(queries.dtype)
    logits = jnp.einsum("...qnh,...knh->...nqk", scaled, read.keys, preferred_element_type=jnp.float32)
    if bias is not None:
        offset = bias * jnp.broadcast_to(scale[:, None, None], bias.shape)
        if mask is not None:
            offset = jnp.where(jnp.broadcast_to(mask, offset.shape), offset, _MASKED_LOGIT)
        logits = logits + jnp.broadcast_to(offset, logits.shape)
    weights, total = _softmax_parts(logits)
    if dropout is not None:
        weights = weights * jnp.broadcast_to(dropout, weights.shape)
    mixed = jnp.einsum("...nqk,...knh->...qnh", weights.astype(read.values.dtype), read.values)
    return (mixed / jnp.swapaxes(total, -2, -3)).astype(read.values.dtype)


def _softmax_parts(
    logits: Float[Array, "*batch N Q K"],
) -> tuple[Float[Array, "*batch N Q K"], Float[Array, "*batch N Q 1"]]:
    """Numerator and denominator."""
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True, initial=_NULL_LOGIT))
    weights = jnp.exp(logits - largest)
    return weights, jnp.sum(weights, axis=-1, keepdims=True) + jnp.exp(_NULL_LOGIT - largest)
