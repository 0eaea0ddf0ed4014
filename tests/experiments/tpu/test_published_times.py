"""The programs that stand for others' are what they say, and each row has a verdict."""

import jax
import numpy as np
import pytest

from block_recurrent.aot.roofline import Estimate
from experiments.tpu.published_times import attention, markdown


def test_attention_is_causal_softmax_with_a_bias():
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v = (jax.random.normal(key, (2, 16, 3, 8)) for key in keys[:3])
    bias = jax.random.normal(keys[3], (2, 3, 16, 16))
    expected = jax.nn.dot_product_attention(q, k, v, bias, is_causal=True)
    np.testing.assert_allclose(attention(q, k, v, bias), expected, atol=1e-5)
    changed = attention(q, k.at[:, 9:].add(1), v.at[:, 9:].add(1), bias)
    np.testing.assert_array_equal(changed[:, :9], attention(q, k, v, bias)[:, :9])


@pytest.mark.parametrize(("published", "verdict"), [(0.001, "NO"), (0.0014, "yes"), (0.0029, "yes"), (0.0031, "NO")])
def test_an_estimate_beyond_the_factor_says_so(published, verdict):
    table = markdown([("one", published, Estimate(0.001, 0.002, 0.0))])
    assert table.splitlines()[-1].endswith(f"| {verdict} |")
    assert f"{0.002 / published:.2f}" in table
