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
    means = np.array([data[rng.integers(len(data), size=len(data))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
