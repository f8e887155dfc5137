"""Intervals of several training seeds that all meet the same held-out episodes.

An episode begins alike for every training seed, with the same noise in its plans, and what comes of it is much the same
(where one of four goals counts, with a correlation of 0.86): three seeds of 200 episodes say little more than 200
episodes do. So a rate has the interval of the episodes of one seed, which holds however alike the seeds are, and
differences are averaged over seeds before episodes are drawn again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robopol.evaluation.statistics import bootstrap_mean, paired, wilson

Rows = Sequence[Sequence[float]]
"""A figure of every episode, for each training seed; the same episodes."""


def share(rates: Sequence[float], episodes: int) -> tuple[float, tuple[float, float]]:
    """Return a share of episodes over training seeds, and its 95% Wilson interval.

    Args:
        rates: That of each seed.
        episodes: How many each seed met.
    """
    rate = float(np.mean(rates))
    return rate, wilson(rate * episodes, episodes)


def mean(rows: Rows) -> tuple[float, tuple[float, float]]:
    """Return the mean of a figure, and its 95% bootstrap interval."""
    values = np.mean(rows, 0)
    return float(values.mean()), bootstrap_mean(values.tolist())


def success(rows: Rows) -> dict[str, Any]:
    """Return what tables say of successes: ``success_rate``, ``success_ci95``, ``by_seed``, ``episodes``."""
    rates = [float(np.mean(row)) for row in rows]
    rate, interval = share(rates, len(rows[0]))
    return {
        "success_rate": rate,
        "success_ci95": interval,
        "by_seed": rates,
        "episodes": sum(map(len, rows)),
    }


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Return what tables say of a figure of each training seed: ``mean``, ``seeds_ci95`` (bootstrap), ``by_seed``."""
    return {"mean": sum(values) / len(values), "seeds_ci95": bootstrap_mean(values), "by_seed": list(values)}


def of_seeds(found: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return `over_seeds` of every figure by name; one mapping of figures for each seed."""
    return {name: over_seeds([one[name] for one in found]) for name in found[0]}


def gain(before: Rows, after: Rows) -> dict[str, Any]:
    """Return by how much a figure grew in the same episodes: ``gain``, ``gain_ci95``."""
    grown, low, high = paired(np.mean(before, 0).tolist(), np.mean(after, 0).tolist())
    return {"gain": grown, "gain_ci95": (low, high)}
