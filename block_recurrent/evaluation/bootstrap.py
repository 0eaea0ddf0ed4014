"""Confidence intervals by resampling documents, and a paired permutation test; documents count as independent."""

from collections.abc import Callable

import numpy as np

from block_recurrent.evaluation.records import Bootstrap, Estimate

_DRAWS_AT_ONCE = 1 << 22
_PERMUTATIONS = 9999


def ratio_estimates(numerators: np.ndarray, denominators: np.ndarray, bootstrap: Bootstrap) -> list[Estimate]:
    """Returns ratios of sums over documents, such as loss per token, with percentile intervals.

    Every column uses the same resampled documents, so the estimates of one call are comparable.

    Args:
        numerators: (D, K), for each document and column.
        denominators: (D, K); no column may sum to 0.
        bootstrap: number of replicates, level and seed.

    Returns:
        K estimates; without an interval where fewer than two documents contribute.
    """
    values = numerators.sum(axis=0) / denominators.sum(axis=0)
    replicates = _replicates(numerators, denominators, bootstrap)
    tail = 100 * (1 - bootstrap.level) / 2
    low, high = np.nanpercentile(replicates, [tail, 100 - tail], axis=0)
    documents = (denominators != 0).sum(axis=0)
    return [
        Estimate(value=float(v), low=float(a), high=float(b)) if n > 1 else Estimate(value=float(v))
        for v, a, b, n in zip(values, low, high, documents, strict=True)
    ]


def ratio_estimate(numerator: np.ndarray, denominator: np.ndarray, bootstrap: Bootstrap) -> Estimate:
    """Returns `ratio_estimates` of a single column, (D,) over (D,)."""
    return ratio_estimates(numerator[:, None], denominator[:, None], bootstrap)[0]


def transformed(estimate: Estimate, increasing: Callable[[float], float]) -> Estimate:
    """Applies an increasing function to an estimate and its interval; percentiles are preserved."""
    low, high = estimate.low, estimate.high
    return Estimate(
        value=increasing(estimate.value),
        low=None if low is None else increasing(low),
        high=None if high is None else increasing(high),
    )


def sign_flip_p_value(differences: np.ndarray, seed: int) -> float | None:
    """Returns the two-sided p-value of a sign-flip permutation test on the sum of paired differences.

    Args:
        differences: (D,), of each document.
        seed: seed of the flips.

    Returns:
        The p-value, add-one corrected, so at least 1 / 10,000; None with fewer than two documents.
    """
    if len(differences) < 2:
        return None
    observed = abs(differences.sum()) * (1 - 1e-12)  # ties count whatever the order of summation
    raw, extreme = _raw(seed), 0
    for size in _chunks(_PERMUTATIONS, len(differences)):
        signs = np.where(raw(size * len(differences)).reshape(size, -1) & np.uint64(1), 1.0, -1.0)
        extreme += int((np.abs(signs @ differences) >= observed).sum())
    return (1 + extreme) / (1 + _PERMUTATIONS)


def smallest_p_value(documents: int) -> float:
    """Returns the smallest value that `sign_flip_p_value` can take: all differences have one sign, as have 2 of 2^D."""
    return max(2.0 ** (1 - documents), 1 / (1 + _PERMUTATIONS))


def _replicates(numerators: np.ndarray, denominators: np.ndarray, bootstrap: Bootstrap) -> np.ndarray:
    """Returns (R, K) ratios; NaN where no drawn document contributes to a column."""
    documents = len(numerators)
    raw, ratios = _raw(bootstrap.seed), []
    for size in _chunks(bootstrap.replicates, documents):
        drawn = (raw(size * documents) % np.uint64(documents)).astype(np.int64).reshape(size, documents)
        flat = (drawn + np.arange(size)[:, None] * documents).reshape(-1)
        times = np.bincount(flat, minlength=size * documents).reshape(size, documents).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios.append((times @ numerators) / (times @ denominators))
    return np.concatenate(ratios)


def _raw(seed: int) -> Callable[[int], np.ndarray]:
    """Returns a source of raw Philox draws, which do not depend on the version of numpy."""
    return np.random.Philox(key=seed).random_raw


def _chunks(total: int, documents: int) -> list[int]:
    size = max(1, _DRAWS_AT_ONCE // max(1, documents))
    return [min(size, total - start) for start in range(0, total, size)]
