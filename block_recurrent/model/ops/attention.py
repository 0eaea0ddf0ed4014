"""Attention between unit-length queries and keys, with a learned scale per head."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_NORM_EPSILON = 1e-6
MASKED_LOGIT = -1e6
NULL_LOGIT = -1000.0

_Offset: TypeAlias = Float[Array, "*rows N Q K"] | None  # added to the logits
_Spread: TypeAlias = Callable[[Any], tuple[Float[Array, "rows N K H"], Float[Array, "rows N K H"]]]


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
    kv: Any,
    scale: Float[Array, "N"],
    *,
    visible: Callable[[Any], KeyValues] | None = None,
    bias: Float[Array, "*rows N Q K"] | None = None,
    mask: Bool[np.ndarray, "Q K"] | Bool[Array, "*rows 1 Q K"] | None = None,
    dropout: Float[Array, "N Q K"] | None = None,
) -> Float[Array, "*batch Q N H"]:
    """Returns softmax(|scale| * (queries . keys + bias)) values.

    The softmax has one additional logit, -1000, without a value: the output of a query that sees no key is zero.

    Logits and weights are by far the largest arrays of the model. Therefore scale, bias and mask are combined before
    they are added to the logits, the output is normalised instead of the weights, and the backward pass computes the
    weights again instead of storing them.

    Args:
        queries: vectors of unit length, as the keys; there is no factor 1 / sqrt(H).
        kv: `KeyValues` with the leading axes of the queries, or the arguments of `visible`.
        scale: factor per head; its absolute value multiplies the logits, including the bias (official code).
        visible: returns `KeyValues` with the leading axes of the queries. The backward pass calls it again: where a key
            is visible to several blocks of queries, the copies are not stored.
        bias: added to the logits; leading axes make it differ between rows (decoding, where positions differ).
        mask: True where a query sees a key; only used together with a bias. None shows all keys.
        dropout: multiplies the attention weights.
    """
    scaled, offset = _scaled(queries, scale, bias, mask)
    by_head = _swap_heads(scaled)

    def spread(kv: Any) -> tuple[Array, Array]:
        keys, values = visible(kv) if visible else kv
        return _as_rows(_swap_heads(keys)), _as_rows(_swap_heads(values))

    attended: Any = _attention(spread, visible is not None, _as_rows(by_head), kv, offset, dropout)
    return _swap_heads(attended.reshape(by_head.shape))


def attention_weights(
    queries: Float[Array, "*batch Q N H"],
    keys: Float[Array, "*batch K N H"],
    scale: Float[Array, "N"],
    *,
    bias: Float[Array, "*rows N Q K"] | None = None,
    mask: Bool[np.ndarray, "Q K"] | Bool[Array, "*rows 1 Q K"] | None = None,
) -> Float[Array, "*batch N Q K"]:
    """Returns the weights with which `attend` sums the values, in float32; see there for the arguments."""
    scaled, offset = _scaled(queries, scale, bias, mask)
    weights, _, total = _softmax_parts(_swap_heads(scaled), _swap_heads(keys), offset)
    return weights / jnp.broadcast_to(total, weights.shape)


def _scaled(
    queries: Float[Array, "*batch Q N H"],
    scale: Float[Array, "N"],
    bias: Float[Array, "*rows N Q K"] | None,
    mask: Bool[np.ndarray, "Q K"] | Bool[Array, "*rows 1 Q K"] | None,
) -> tuple[Float[Array, "*batch Q N H"], _Offset]:
    """Returns the queries times |scale|, and the sum of bias and mask that is added to their products with the keys."""
    scale = jnp.abs(scale)
    scaled = (queries * jnp.broadcast_to(scale[:, None], queries.shape)).astype(queries.dtype)
    if bias is None:
        return scaled, None
    offset = bias * jnp.broadcast_to(scale[:, None, None], bias.shape)
    if mask is not None:
        offset = jnp.where(jnp.broadcast_to(mask, offset.shape), offset, MASKED_LOGIT)
    return scaled, offset


def _swap_heads(x: Float[Array, "*batch A B H"]) -> Float[Array, "*batch B A H"]:
    """Moves the heads from after the vectors to before them, or back."""
    return jnp.swapaxes(x, -2, -3)


def _as_rows(x: Float[Array, "*batch N Q H"]) -> Float[Array, "rows N Q H"]:
    """Makes the leading axes one, over which XLA on CPU sums fastest."""
    return x.reshape(-1, *x.shape[-3:])


def _logits(
    queries: Float[Array, "*batch N Q H"],
    keys: Float[Array, "*batch N K H"],
    offset: _Offset,
) -> Float[Array, "*batch N Q K"]:
    logits = jnp.einsum("...qh,...kh->...qk", queries, keys, preferred_element_type=jnp.float32)
    return logits if offset is None else logits + jnp.broadcast_to(offset, logits.shape)


def _softmax_parts(
    queries: Float[Array, "*batch N Q H"],
    keys: Float[Array, "*batch N K H"],
    offset: _Offset,
) -> tuple[Float[Array, "*batch N Q K"], Float[Array, "*batch N Q 1"], Float[Array, "*batch N Q 1"]]:
    """Returns the numerator of the softmax, the largest logit that was subtracted before, and the denominator."""
    logits = _logits(queries, keys, offset)
    largest = jnp.max(logits, axis=-1, keepdims=True, initial=NULL_LOGIT)
    weights = jnp.exp(logits - largest)
    return weights, largest, jnp.sum(weights, axis=-1, keepdims=True) + jnp.exp(NULL_LOGIT - largest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(
    spread: _Spread,
    spread_again: bool,
    queries: Float[Array, "rows N Q H"],
    kv: Any,
    offset: _Offset,
    dropout: Float[Array, "N Q K"] | None,
) -> Float[Array, "rows N Q H"]:
    return _attention_forward(spread, spread_again, queries, kv, offset, dropout)[0]


def _attention_forward(
    spread: _Spread, spread_again: bool, queries: Array, kv: Any, offset: _Offset, dropout: Array | None
) -> Any:
    keys, values = spread(kv)
    weights, largest, total = _softmax_parts(queries, keys, offset)
    mixed = jnp.einsum("...qk,...kh->...qh", _drop(weights, dropout).astype(values.dtype), values)
    output = (mixed / total).astype(values.dtype)
    return output, (queries, kv, offset, dropout, output, largest + jnp.log(total))


def _add_to_all(tree: Any, number: Float[Array, ""]) -> Any:
    return jax.tree.map(lambda x: x + jnp.broadcast_to(number, x.shape).astype(x.dtype), tree)


def _attention_backward(
    spread: _Spread, spread_again: bool, residuals: Any, gradient: Float[Array, "rows N Q H"]
) -> Any:
    """Computes the weights again, and with them the gradients.

    With P the weights and G the gradient of the outputs O, the gradient of the logits is P (G V^T - sum(G O)), where
    the sum is over the channels of a query.
    """
    queries, kv, offset, dropout, output, log_total = residuals
    # Without a dependency on the gradient, the compiler finds that the forward pass has computed the weights, and keeps
    # them. On CPU it removes `optimization_barrier` before it looks.
    queries = queries + 0 * gradient
    if spread_again:
        # Only on CPU: on several devices, one element of the gradient for all would be a collective in every layer.
        zero = 0 * gradient[0, 0, 0, 0]
        kv = jax.lax.platform_dependent(kv, zero, cpu=_add_to_all, default=lambda kv, zero: kv)
    (keys, values), gather = jax.vjp(spread, kv)
    weights = jnp.exp(_logits(queries, keys, offset) - log_total)
    by_weight = jnp.einsum("...qh,...kh->...qk", gradient, values, preferred_element_type=jnp.float32)
    mean = jnp.sum(gradient.astype(jnp.float32) * output.astype(jnp.float32), axis=-1, keepdims=True)
    by_logit = weights * (_drop(by_weight, dropout) - mean)
    narrow = by_logit.astype(keys.dtype)
    by_key = jnp.einsum("...qk,...qh->...kh", narrow, queries)
    by_value = jnp.einsum("...qk,...qh->...kh", _drop(weights, dropout).astype(values.dtype), gradient)
    return (
        jnp.einsum("...qk,...kh->...qh", narrow, keys),
        *gather((by_key, by_value)),
        None if offset is None else jnp.sum(by_logit, axis=0) if offset.ndim == 3 else by_logit,
        None,  # masks of dropout are drawn, not learned
    )


_attention.defvjp(_attention_forward, _attention_backward)


def _drop(weights: Float[Array, "*batch N Q K"], dropout: Float[Array, "N Q K"] | None) -> Float[Array, "*batch N Q K"]:
    return weights if dropout is None else weights * jnp.broadcast_to(dropout, weights.shape)
