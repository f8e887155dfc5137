"""What the benchmarks of steering share: rates beside a base policy on the same episodes, and what a plan costs."""

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch

from robopol.evaluation import Evaluation
from robopol.evaluation.statistics import paired, wilson
from robopol.policies import Policy


def beside(base: list[Evaluation], other: list[Evaluation]) -> dict[str, Any]:
    """Put the seeds of a row together, and its difference to the base on the same episodes.

    Args:
        base: One evaluation for each training seed.
        other: The same, over the same episodes.
    """
    base = base[: len(other)]  # a row of fewer seeds is beside the first ones
    before, after = ([float(outcome.success) for found in rows for outcome in found.outcomes] for rows in (base, other))
    gain, low, high = paired(before, after)
    ways: dict[str, int] = {}
    for found in other:
        for way, count in found.ways.items():
            ways[way] = ways.get(way, 0) + count
    return {
        "success_rate": sum(after) / len(after),
        "success_ci95": wilson(int(sum(after)), len(after)),
        "by_seed": [found.success_rate for found in other],
        "gain": gain,
        "gain_ci95": (low, high),
        "ways": ways,
        "episodes": len(after),
        "steering": other[0].steering,
    }


def latency(policy: Policy, obs: Mapping[str, torch.Tensor], repeats: int = 20) -> float:
    """Return the median milliseconds of a plan."""
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        policy.plan(obs, 1, torch.Generator().manual_seed(0))
        taken.append(1000 * (time.perf_counter() - begun))
    return median(taken)


def nothing_seen(policy: Policy) -> dict[str, torch.Tensor]:
    """Return one row of observations, for timing."""
    return {key: torch.zeros(1, policy.spec.n_obs_steps, *shape) for key, shape in policy.spec.obs_shapes.items()}


def show(table: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the rows."""
    for name, row in table.items():
        low, high = row["gain_ci95"]
        print(
            f"{name:36} {row['success_rate']:6.1%}  gain {row['gain']:+6.1%} [{low:+.1%}, {high:+.1%}]  {row['ways']}"
        )
