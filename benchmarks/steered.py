"""What the benchmarks of steering share: what is kept of an evaluation, rows beside a base, costs, curves."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import intervals
import matplotlib.pyplot as plt
import numpy as np
import sections
import torch
from ledger import Ledger
from matplotlib.axes import Axes

from robopol import evaluate
from robopol.envs import VectorEnv
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
        ``jerk``; ``steering``, the log of what steered.
    """
    found = evaluate(policy, env, episodes, seed)
    return {
        "success": "".join(str(int(outcome.success)) for outcome in found.outcomes),
        "way": ",".join(outcome.way or "" for outcome in found.outcomes),
        "length_mean": found.length_mean,
        "jerk": None if found.execution is None else found.execution.jerk,
        "steering": found.steering,
    }


def costs(policies: Mapping[str, Policy], rounds: int = 20) -> dict[str, float]:
    """Time plans of all policies in turns, so that what else the machine does meets them alike.

    Args:
        policies: The policies, by name.
        rounds: How often each has its turn; once more before, for warming up.

    Returns:
        Name -> median milliseconds of a plan of one observation.
    """
    seen = {name: nothing_seen(policy) for name, policy in policies.items()}
    taken: dict[str, list[float]] = {name: [] for name in policies}
    for _ in range(1 + rounds):
        for name, policy in policies.items():
            generator = torch.Generator().manual_seed(0)
            begun = time.perf_counter()
            policy.plan(seen[name], 1, generator)
            taken[name].append(1000 * (time.perf_counter() - begun))
    return {name: median(times[1:]) for name, times in taken.items()}


def nothing_seen(policy: Policy) -> dict[str, torch.Tensor]:
    """Return one row of observations, for timing."""
    return {key: torch.zeros(1, policy.spec.n_obs_steps, *shape) for key, shape in policy.spec.obs_shapes.items()}


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
    before, after = ([succeeded(kept) for kept in rows] for rows in (theirs, ours))
    ways: dict[str, int] = {}
    for kept in ours:
        for way, won in zip(kept["way"].split(","), succeeded(kept), strict=True):
            if way and won:
                ways[way] = ways.get(way, 0) + 1
    return {
        **intervals.success(after),
        **intervals.gain(before, after),
        "ways": ways,
        "steering": ours[0]["steering"],
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


def cost(tables: Mapping[str, Any], row: str, base: str) -> str:
    """Return what a plan of a row costs, in ms and in plans of the base; "-" if it was not timed.

    Args:
        tables: Those of a ledger; ``plan_ms`` is what `costs` returned.
        row: The row.
        base: The row that it is compared with.
    """
    taken = tables.get("plan_ms", {})
    return f"{taken[row]:.1f} ms ({taken[row] / taken[base]:.1f}x)" if row in taken else "-"


def compared(tables: Mapping[str, Any], base: str) -> list[str]:
    """Return the rows of a ledger beside their base, in Markdown."""
    lines = [
        f"Gains over '{base}' in the same held-out episodes, {sections.seeds(tables['rows'])} training seed(s).",
        "",
        "| policy | success | by seed | points gained, paired | ways | a plan (to the base's) |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in tables["rows"].items():
        told = (sections.percent(row), sections.by_seed(row), sections.gained(row), sections.ways(row))
        lines.append(f"| {name} | {' | '.join(told)} | {cost(tables, name, base)} |")
    return lines


def picture(name: str, shows: str) -> list[str]:
    """Return what `draw` has drawn beside the results of a script, in Markdown; nothing if it is not there yet."""
    found = sections.picture(name, shows)
    return ["", f"{shows}; bars are 95% intervals, dots training seeds:", *found] if found else []


class Figure(NamedTuple):
    """What is drawn of a row.

    Attributes:
        label: What it is.
        value: Its key in the row.
        interval: The key of its interval.
        by_seed: The key of its values by training seed.
        unit: What all of them are divided by.
        most: The upper end of the axis; where it has to be if left out.
    """

    label: str
    value: str
    interval: str
    by_seed: str
    unit: float = 1.0
    most: float | None = None


SUCCESS = Figure("success", "success_rate", "success_ci95", "by_seed", most=1.0)


class Curve(NamedTuple):
    """A figure over a setting.

    Attributes:
        label: What the setting is.
        points: Its values, and the row of each.
        figure: What is drawn.
        logarithmic: Whether the values of the setting are drawn so.
    """

    label: str
    points: Mapping[float, str]
    figure: Figure = SUCCESS
    logarithmic: bool = False


def draw(rows: Mapping[str, Mapping[str, Any]], curves: Iterable[Curve], base: str, out: Path) -> None:
    """Draw figures over settings, side by side.

    Args:
        rows: Those of a table; what a row has no interval or seeds of is drawn without.
        curves: What is drawn; points whose row was not measured are left out, and curves of which one is left at most.
        base: The row that is drawn as a line.
        out: A PNG; not written if no curve is left.
    """
    found = [(curve, {x: rows[row] for x, row in curve.points.items() if row in rows}) for curve in curves]
    drawn = [(curve, points) for curve, points in found if len(points) > 1]
    if not drawn:
        return
    figure, (axes,) = plt.subplots(1, len(drawn), figsize=(3.2 * len(drawn), 2.8), squeeze=False, layout="constrained")
    for ax, (curve, points) in zip(axes, drawn, strict=True):
        ax.axhline(rows[base][curve.figure.value] / curve.figure.unit, color="0.5", linestyle="--", label=base)
        _draw_one(ax, curve, points)
    axes[0].legend(fontsize=8)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _draw_one(ax: Axes, curve: Curve, points: Mapping[float, Mapping[str, Any]]) -> None:
    """Draw one curve: its points, their intervals, and every seed."""
    label, value, interval, by_seed, unit, most = curve.figure
    ax.plot(list(points), [row[value] / unit for row in points.values()], marker="o", markersize=4)
    for x, row in points.items():
        if interval in row:
            ax.plot([x, x], [end / unit for end in row[interval]], color="C0", marker="_")
        seeds = np.ravel(row.get(by_seed, [])) / unit
        ax.plot([x] * len(seeds), seeds, "k.", markersize=3, zorder=3)
    if curve.logarithmic:
        ax.set_xscale("log")
        ax.set_xticks(list(points), [f"{x:g}" for x in points])
        ax.minorticks_off()
    ax.set_xlabel(curve.label)
    ax.set_ylabel(label)
    top = most or ax.get_ylim()[1]
    ax.set_ylim(-0.03 * top, 1.03 * top)
