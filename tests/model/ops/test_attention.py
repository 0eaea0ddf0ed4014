import jax
import jax.numpy as jnp
import numpy as np

from block_recurrent.model.ops.attention import KeyValues, attend, attention_weights, unit_length


def random(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def test_weights_are_a_softmax_of_scaled_biased_logits():
    queries, keys, values = random(0, 2, 5, 3, 4), random(1, 2, 7, 3, 4), random(2, 2, 7, 3, 4)
    scale, bias = jnp.array([1.0, -2.0, 0.5]), random(3, 3, 5, 7)
    mask = np.tri(5, 7, 2, dtype=bool)
    out = attend(queries, KeyValues(keys, values), scale, bias=bias, mask=mask)
    logits = np.einsum("bqnh,bknh->bnqk", queries, keys) + np.asarray(bias)
    logits = np.where(mask, logits * np.abs(scale)[:, None, None], -1e6)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(out, np.einsum("bnqk,bknh->bqnh", weights, values), rtol=0, atol=1e-6)
    ours = attention_weights(queries, keys, scale, bias=bias, mask=mask)
    np.testing.assert_allclose(ours, weights, rtol=0, atol=1e-6)


def test_a_query_that_sees_no_key_returns_zero_and_has_finite_gradients():
    kv = KeyValues(random(1, 1, 3, 1, 4), random(2, 1, 3, 1, 4))
    mask = np.array([[False, False, False], [True, False, False]])
    queries, bias = random(0, 1, 2, 1, 4), jnp.zeros((1, 2, 3))

    def first(queries: jax.Array) -> jax.Array:
        return attend(queries, kv, jnp.ones(1), bias=bias, mask=mask)

    out = first(queries)
    assert (out[:, 0] == 0).all()
    np.testing.assert_allclose(out[:, 1], kv.values[:, 0], rtol=0, atol=1e-6)
    gradient = jax.grad(lambda q: jnp.sum(first(q)))(queries)
    assert np.isfinite(gradient).all()


def test_dropout_multiplies_the_weights():
    queries, kv = random(0, 1, 2, 1, 4), KeyValues(random(1, 1, 3, 1, 4), random(2, 1, 3, 1, 4))
    only_last = jnp.zeros((1, 2, 3)).at[:, :, 2].set(2.0)
    dropped = attend(queries, kv, jnp.ones(1), dropout=only_last)
    weights = jax.nn.softmax(jnp.einsum("bqnh,bknh->bnqk", queries, kv.keys))[0, 0, :, 2]
    np.testing.assert_allclose(dropped[0, :, 0], 2 * weights[:, None] * kv.values[0, 2], rtol=0, atol=1e-6)


def test_keys_and_values_that_are_spread_in_the_backward_pass_have_the_same_gradients():
    queries, kv = random(0, 1, 2, 3, 2, 4), KeyValues(random(1, 1, 4, 2, 4), random(2, 1, 4, 2, 4))
    scale, bias, weights = jnp.array([1.0, -2.0]), random(3, 2, 3, 6), random(4, 1, 2, 3, 2, 4)

    def visible(kv: KeyValues) -> KeyValues:  # all four tokens, and twice two of them
        return KeyValues(*(jnp.stack([x[:, [0, 1, 2, 3, 0, 1]], x[:, [2, 3, 0, 1, 2, 3]]], axis=1) for x in kv))

    def spread_before(queries, kv, scale, bias):
        return jnp.sum(attend(queries, visible(kv), scale, bias=bias) * weights)

    def spread_inside(queries, kv, scale, bias):
        return jnp.sum(attend(queries, kv, scale, bias=bias, visible=visible) * weights)

    expected, ours = (
        jax.value_and_grad(function, argnums=(0, 1, 2, 3))(queries, kv, scale, bias)
        for function in (spread_before, spread_inside)
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6), ours, expected)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(ours))


def test_unit_length_guards_against_zero():
    x = random(0, 2, 3, 4)
    np.testing.assert_allclose(np.linalg.norm(unit_length(x), axis=-1), 1, rtol=0, atol=1e-5)
    assert (unit_length(jnp.zeros((1, 1, 4))) == 0).all()
