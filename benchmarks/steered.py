"""What the benchmarks of steering share: what is kept of an evaluation, and rows beside a base on the same episodes."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import sections
import torch
from ledger import Ledger

from robopol import evaluate
from robopol.envs import VectorEnv
from robopol.evaluation.statistics import paired, wilson
from robopol.policies import Policy


def measured(policy: Policy, env: VectorEnv, episodes: int, seed: int) -> dict[str, Any]:
    """Evaluate a policy, and return what a ledger keeps of it.

    Args:
        policy: The policy, steered or not.
        env: Where it acts.
        episodes: How many.
        seed: Of the first episode.

    Returns:
        ``success``, a text with a 0 or 1 for each episode; ``way``, the way of each, empty if none; ``length_mean``;
        ``jerk``; ``steering``, the log of what steered; ``plan_ms``, what a plan costs on this machine.
    """
    found = evaluate(policy, env, episodes, seed)
    return {
        "success": "".join(str(int(outcome.success)) for outcome in found.outcomes),
        "way": ",".join(outcome.way or "" for outcome in found.outcomes),
        "length_mean": found.length_mean,
        "jerk": None if found.execution is None else found.execution.jerk,
        "steering": found.steering,
        "plan_ms": latency(policy, nothing_seen(policy)),
    }


def succeeded(kept: Mapping[str, Any]) -> list[bool]:
    """Return whether each episode of a measurement succeeded."""
    return [digit == "1" for digit in kept["success"]]


def beside(ledger: Ledger, base: str, row: str) -> dict[str, Any]:
    """Put the seeds of a row together, and its difference to the base on the same episodes.

    Args:
        ledger: Where both are.
        base: The row that it is compared with; of the same seeds, at least.
        row: The row.
    """
    seeds = ledger.seeds(row)
    ours, theirs = ledger.of(row), ledger.of(base, seeds)
    before, after = ([float(won) for kept in rows for won in succeeded(kept)] for rows in (theirs, ours))
    gain, low, high = paired(before, after)
    ways: dict[str, int] = {}
    for kept in ours:
        for way, won in zip(kept["way"].split(","), succeeded(kept), strict=True):
            if way and won:
                ways[way] = ways.get(way, 0) + 1
    return {
        "success_rate": sum(after) / len(after),
        "success_ci95": wilson(int(sum(after)), len(after)),
        "by_seed": [sum(succeeded(kept)) / len(succeeded(kept)) for kept in ours],
        "gain": gain,
        "gain_ci95": (low, high),
        "ways": ways,
        "episodes": len(after),
        "steering": ours[0]["steering"],
        "plan_ms": median(kept["plan_ms"] for kept in ours),
    }


def table(ledger: Ledger, base: str, rows: Iterable[str]) -> dict[str, Any]:
    """Return, and print, every row beside the base; see `beside`."""
    found = {row: beside(ledger, base, row) for row in rows}
    for name, row in found.items():
        low, high = row["gain_ci95"]
        print(
            f"{name:36} {row['success_rate']:6.1%}  gain {row['gain']:+6.1%} [{low:+.1%}, {high:+.1%}]  {row['ways']}"
        )
    return found


def compared(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return rows of success beside a base on the same episodes, in Markdown."""
    lines = ["| policy | success | by seed | points gained, paired | ways | a plan |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        cost = f"{row['plan_ms']:.1f} ms" if "plan_ms" in row else "-"
        lines.append(
            f"| {name} | {sections.percent(row)} | {sections.by_seed(row)} | {sections.gained(row)} | "
            f"{sections.ways(row)} | {cost} |"
        )
    return lines


class Curve(NamedTuple):
    """Success over a setting.

    Attributes:
        label: What the setting is.
        points: Its values, and the row of each.
        logarithmic: Whether the values are drawn so.
    """

    label: str
    points: Mapping[float, str]
    logarithmic: bool = False


def draw(rows: Mapping[str, Mapping[str, Any]], curves: Iterable[Curve], base: str, out: Path) -> None:
    """Draw success over settings, side by side, with Wilson intervals, every seed, and the base as a line.

    Args:
        rows: What `table` returned.
        curves: What is drawn; points whose row was not measured are left out.
        base: The row of the line.
        out: A PNG.
    """
    drawn = [(curve, {x: rows[row] for x, row in curve.points.items() if row in rows}) for curve in curves]
    figure, axes = plt.subplots(1, len(drawn), figsize=(3.2 * len(drawn), 2.8), sharey=True, squeeze=False)
    for ax, (curve, points) in zip(axes[0], drawn, strict=True):
        middle = [row["success_rate"] for row in points.values()]
        ends = [row["success_ci95"] for row in points.values()]
        below = [m - low for m, (low, _) in zip(middle, ends, strict=True)]
        above = [high - m for m, (_, high) in zip(middle, ends, strict=True)]
        ax.axhline(rows[base]["success_rate"], color="0.5", linestyle="--", linewidth=1, label=base)
        ax.errorbar(list(points), middle, [below, above], marker="o", markersize=4, capsize=2)
        for x, row in points.items():
            ax.plot([x] * len(row["by_seed"]), row["by_seed"], ".", color="0.6", markersize=3, zorder=0)
        if curve.logarithmic:
            ax.set_xscale("log")
            ax.set_xticks(list(points), [f"{x:g}" for x in points], minor=False)
            ax.minorticks_off()
        ax.set_xlabel(curve.label)
        ax.set_ylim(-0.03, 1.03)
    axes[0][0].set_ylabel("success")
    axes[0][0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)


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
