"""Intervals for what an evaluation measured."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a success rate (Wilson 1927), which holds at 0 and 1 too.

    Args:
        successes: Number of successes.
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
