"""Intervals for what an evaluation measured."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def wilson(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a success rate (Wilson 1927), which holds at 0 and 1 too.

    Args:
        successes: Number of successes; a fraction where each trial is a mean of several.
        trials: Number of trials, at least 1.
        confidence: Coverage.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, spread = successes / trials, z**2 / trials
    centre = (rate + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_mean(values: Sequence[float], confidence: float = 0.95, resamples: int = 10_000) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean (Efron 1979), the same for the same values.

    Args:
        values: Independent measurements, at least 1.
        confidence: Coverage.
        resamples: Number of resampled means.

    Returns:
        Lower and upper bound.
    """
    data = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(0)
    at_once = max(1, 1_000_000 // len(data))
    blocks = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    means = np.concatenate([data[rng.integers(len(data), size=(block, len(data)))].mean(1) for block in blocks])
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def paired(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the mean difference of measurements in the same circumstances, and its paired bootstrap interval.

    What makes an episode hard is hard for both, and drops out of the difference: the interval is narrower than those of
    the two means.

    Args:
        first: One for each circumstance, e.g. for each episode seed; at least 1.
        second: The same, in the same order.
        confidence: Coverage.

    Returns:
        Mean of second - first, lower and upper bound.
    """
    differences = np.subtract(np.asarray(second, dtype=np.float64), np.asarray(first, dtype=np.float64))
    return float(differences.mean()), *bootstrap_mean(differences.tolist(), confidence)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the exact two-sided p-value that two success rates are equal, from pairs (McNemar 1947).

    Only pairs in which one succeeds and the other fails say anything: of n, as many would be of one kind as a fair coin
    shows heads.

    Args:
        first: One for each circumstance.
        second: The same, in the same order.

    Returns:
        In (0, 1]; 1 where no pair differs.
    """
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    tail = sum(math.comb(gained + lost, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2 ** (gained + lost))


def iqm(values: Sequence[float]) -> float:
    """Return the interquartile mean: the mean without the lowest and the highest quarter (Agarwal et al. 2021).

    It is nearly as sure as a mean, and no single lucky or failed run decides it. Of n values, n // 4 are left out at
    either end, as `scipy.stats.trim_mean` does.

    Args:
        values: At least 1.
    """
    return float(_iqm(np.asarray(values, dtype=np.float64)[None])[0])


def stratified_iqm(
    strata: Sequence[Sequence[float]], confidence: float = 0.95, resamples: int = 10_000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the interquartile mean of all values, resampled in each stratum.

    "Deep reinforcement learning at the edge of the statistical precipice" (Agarwal et al. 2021, arXiv 2108.13264): runs
    are drawn again within each task, so that no resample is of easier tasks than another.

    Args:
        strata: The runs of each task, at least 1 of each.
        confidence: Coverage.
        resamples: Number of resampled means; the same ones for the same values.

    Returns:
        Lower and upper bound.
    """
    rng = np.random.default_rng(0)
    data = [np.asarray(values, dtype=np.float64) for values in strata]
    drawn = np.concatenate([values[rng.integers(len(values), size=(resamples, len(values)))] for values in data], 1)
    low, high = np.quantile(_iqm(drawn), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _iqm(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the interquartile mean of each row."""
    cut = rows.shape[1] // 4
    ordered = np.sort(rows, 1)
    middle: NDArray[np.float64] = ordered[:, cut : rows.shape[1] - cut].mean(1)
    return middle
