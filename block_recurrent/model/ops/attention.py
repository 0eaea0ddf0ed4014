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
    """Keys, of unit length, and values of an attention."""

    keys: Float[Array, "*batch K N H"]
    values: Float[Array, "*batch K N H"]


def unit_length(x: Float[Array, "*batch N H"]) -> Float[Array, "*batch N H"]:
    """Scales each head's vector to length 1; the sum of squares is float32."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(squares + _NORM_EPSILON)).astype(x.dtype)


def attend(
    queries: Float[Array, "*batch Q N H"],
    kv: KeyValues,
    scale: Float[Array, "N"],
    *,
    bias: Float[Array, "*rows N Q K"] | None = None,
    mask: Bool[np.ndarray, "Q K"] | Bool[Array, "*rows 1 Q K"] | None = None,
    dropout: Float[Array, "N Q K"] | None = None,
) -> Float[Array, "*batch Q N H"]:
    """Returns softmax(|scale| * (queries . keys + bias)) values.

    The softmax has one additional logit, -1000, without a value: the output of a query that sees no key is zero.

    Logits and weights are by far the largest arrays of the model. Therefore scale, bias and mask are combined before
    they are added to the logits, and the output is normalised instead of the weights.

    Args:
        queries: vectors of unit length, as the keys; there is no factor 1 / sqrt(H).
        kv: keys and values with the leading axes of the queries.
        scale: factor per head; its absolute value multiplies the logits, including the bias (official code).
        bias: added to the logits; leading axes make it differ between rows (decoding, where positions differ).
        mask: True where a query sees a key; only used together with a bias. None shows all keys.
        dropout: multiplies the attention weights.
    """
    weights, total = _softmax_parts(_logits(queries, kv.keys, scale, bias, mask))
    if dropout is not None:
        weights = weights * jnp.broadcast_to(dropout, weights.shape)
    mixed = jnp.einsum("...nqk,...knh->...qnh", weights.astype(kv.values.dtype), kv.values)
    return (mixed / jnp.swapaxes(total, -2, -3)).astype(kv.values.dtype)


def attention_weights(
    queries: Float[Array, "*batch Q N H"],
    keys: Float[Array, "*batch K N H"],
    scale: Float[Array, "N"],
    *,
    bias: Float[Array, "*rows N Q K"] | None = None,
    mask: Bool[np.ndarray, "Q K"] | Bool[Array, "*rows 1 Q K"] | None = None,
) -> Float[Array, "*batch N Q K"]:
    """Returns the weights with which `attend` sums the values, in float32; see there for the arguments."""
    weights, total = _softmax_parts(_logits(queries, keys, scale, bias, mask))
    return weights / jnp.broadcast_to(total, weights.shape)


def _logits(
    queries: Float[Array, "*batch Q N H"],
    keys: Float[Array, "*batch K N H"],
    scale: Float[Array, "N"],
    bias: Float[Array, "*rows N Q K"] | None,
    mask: Bool[np.ndarray, "Q K"] | Bool[Array, "*rows 1 Q K"] | None,
) -> Float[Array, "*batch N Q K"]:
    scale = jnp.abs(scale)
    scaled = (queries * jnp.broadcast_to(scale[:, None], queries.shape)).astype(queries.dtype)
    logits = jnp.einsum("...qnh,...knh->...nqk", scaled, keys, preferred_element_type=jnp.float32)
    if bias is None:
        return logits
    offset = bias * jnp.broadcast_to(scale[:, None, None], bias.shape)
    if mask is not None:
        offset = jnp.where(jnp.broadcast_to(mask, offset.shape), offset, _MASKED_LOGIT)
    return logits + jnp.broadcast_to(offset, logits.shape)


def _softmax_parts(
    logits: Float[Array, "*batch N Q K"],
) -> tuple[Float[Array, "*batch N Q K"], Float[Array, "*batch N Q 1"]]:
    """Returns the numerator and the denominator of the softmax."""
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True, initial=_NULL_LOGIT))
    weights = jnp.exp(logits - largest)
    return weights, jnp.sum(weights, axis=-1, keepdims=True) + jnp.exp(_NULL_LOGIT - largest)
