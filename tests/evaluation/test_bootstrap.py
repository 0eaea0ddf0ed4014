import numpy as np
import pytest

from block_recurrent.evaluation.bootstrap import (
    ratio_estimate,
    ratio_estimates,
    sign_flip_p_value,
    smallest_p_value,
    transformed,
)
from block_recurrent.evaluation.records import Bootstrap, Estimate

BOOTSTRAP = Bootstrap(replicates=2000, level=0.95, seed=3)


def test_intervals_have_their_nominal_coverage():
    """Means of 30 normal draws: about 95 % of the intervals contain the truth (slightly fewer with 30 draws)."""
    rng = np.random.default_rng(0)
    plan = Bootstrap(replicates=400, level=0.95, seed=1)
    covered = 0
    for _ in range(400):
        estimate = ratio_estimate(rng.normal(5, 2, 30), np.ones(30), plan)
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= 5 <= estimate.high
    assert 0.90 < covered / 400 < 0.97


def test_interval_width_matches_the_standard_error():
    rng = np.random.default_rng(1)
    sums, counts = rng.gamma(2, 100, 400), rng.integers(50, 150, 400).astype(float)
    estimate = ratio_estimate(sums, counts, BOOTSTRAP)
    ratio = sums.sum() / counts.sum()
    error = np.sqrt(((sums - ratio * counts) ** 2).sum()) / counts.sum()  # delta method
    assert estimate.value == ratio
    assert estimate.low is not None
    assert estimate.high is not None
    assert (estimate.high - estimate.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)


def test_columns_share_their_draws_and_a_single_document_has_no_interval():
    sums = np.array([[1.0, 2.0, 0.0], [3.0, 6.0, 5.0], [2.0, 4.0, 0.0]])
    counts = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 2.0], [4.0, 4.0, 0.0]])
    one, two, alone = ratio_estimates(sums, counts, BOOTSTRAP)
    assert two == transformed(one, lambda x: 2 * x)
    assert alone == Estimate(value=2.5)
    assert ratio_estimates(sums, counts, BOOTSTRAP) == [one, two, alone]


def test_permutation_p_values_of_known_cases():
    p_value = sign_flip_p_value(np.array([1.0, 2.0, 3.0]), seed=0)
    assert p_value is not None
    assert p_value == pytest.approx(2 / 8, abs=0.02)  # of the 8 sign patterns, two are as extreme
    assert sign_flip_p_value(np.full(40, 0.1), seed=0) == 1 / 10_000
    assert sign_flip_p_value(np.array([0.0, 0.0]), seed=0) == 1
    assert sign_flip_p_value(np.array([1.0]), seed=0) is None


@pytest.mark.parametrize("documents", [2, 3, 5, 40])
def test_the_smallest_p_value_is_that_of_differences_with_one_sign(documents):
    differences = 2.0 ** -np.arange(documents)  # no other choice of signs has a sum as large
    assert sign_flip_p_value(differences, seed=1) == pytest.approx(smallest_p_value(documents), rel=0.1)
