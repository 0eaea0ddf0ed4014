from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from block_recurrent.model.ops.positions import causal_mask, relative_bias, t5_bucket

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.mark.parametrize("name", ["bias_skip_long_window", "xl"])
def test_buckets_equal_the_official_ones(name):
    with np.load(FIXTURES / f"{name}.npz") as archive:
        expected = archive["aux/t5_bucket_by_distance"]
    np.testing.assert_array_equal(t5_bucket(np.arange(len(expected))), expected)


def test_buckets_are_exact_then_logarithmic_then_one():
    buckets = t5_bucket(np.arange(5000))
    np.testing.assert_array_equal(buckets[:17], [*range(16), 16])
    assert (np.diff(buckets) >= 0).all()
    assert set(buckets) == set(range(32))
    assert (buckets[113:] == 31).all()
    assert buckets[112] == 30


SHAPES = [(4, 8), (5, 5), (1, 6), (40, 80), (128, 256), (130, 200), (384, 700)]  # up to 128 queries are one tile


@pytest.mark.parametrize(("num_queries", "num_keys"), SHAPES)
def test_the_bias_is_the_table_entry_of_the_distance(num_queries, num_keys):
    table = jax.random.normal(jax.random.key(0), (3, 32))
    buckets = t5_bucket(_distances(num_queries, num_keys))
    np.testing.assert_array_equal(relative_bias(table, num_queries, num_keys), np.asarray(table)[:, buckets])


@pytest.mark.parametrize(("num_queries", "num_keys"), SHAPES)
def test_the_gradient_of_a_bucket_sums_over_its_distances(num_queries, num_keys):
    shape = (num_queries, num_keys)
    weights = np.random.default_rng(0).integers(-8, 9, shape).astype(np.float32)  # their sums are exact in float32
    gradient = jax.grad(lambda table: jnp.sum(relative_bias(table, *shape)[0] * weights))(jnp.zeros((1, 32)))[0]
    expected = np.bincount(t5_bucket(_distances(*shape)).ravel(), weights.ravel(), minlength=32)
    np.testing.assert_array_equal(gradient, expected)


def _distances(num_queries, num_keys):
    return num_keys - num_queries + np.arange(num_queries)[:, None] - np.arange(num_keys)


def test_a_query_sees_the_window_before_it_and_not_itself():
    mask = causal_mask(4, 8, 4)
    for query in range(4):
        np.testing.assert_array_equal(np.flatnonzero(mask[query]), np.arange(query, query + 4))
    np.testing.assert_array_equal(causal_mask(3, 3, None), [[0, 0, 0], [1, 0, 0], [1, 1, 0]])
