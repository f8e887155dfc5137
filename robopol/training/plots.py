"""Pictures: the curves of runs, and the paths that episodes took."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from robopol.errors import DataError, ShapeError
from robopol.evaluation.tuning import Tuning
from robopol.files import whole_file
from robopol.training.loggers import read_metrics

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart with every kind of colour vision (Okabe and Ito 2008)."""
FAILED = "failed"
"""The label of a path that led nowhere; `plot_paths` draws it in grey."""

_PANELS = {
    "train/loss": "training loss",
    "val/loss": "held-out loss",
    "val/action_error": "held-out action error",
    "eval/success_rate": "success rate, with 95 % interval",
    "eval/return_mean": "return",
}
"""Metric -> title of its panel."""


class Shape(TypedDict):
    """Something that lies in the plane of `plot_paths`.

    Attributes:
        kind: ``"circle"`` or ``"box"``.
        xy: Its centre.
        size: Radius of a circle; width and height of a box.
        label: What it is.
    """

    kind: str
    xy: tuple[float, float]
    size: float | tuple[float, float]
    label: NotRequired[str]


def drawable(logs: Sequence[Path]) -> list[str]:
    """Return what of runs can be drawn; arguments and errors as for `plot_curves`, but nothing is no error."""
    lines = [line for log in logs for line in read_metrics(log)]
    return [metric for metric in _PANELS if any(metric in line for line in lines)]


def plot_curves(logs: Sequence[Path], out: Path) -> None:
    """Draw losses, action error, success and return over the run, several runs over each other.

    They are drawn over environment steps if one of the runs took any, else over updates.

    Args:
        logs: The ``metrics.jsonl`` of each run.
        out: Where the PNG goes.

    Raises:
        DataError: If a log cannot be read, or none holds anything that is drawn.
    """
    from matplotlib.figure import Figure

    runs = dict(zip(_names(logs), map(read_metrics, logs), strict=True))
    panels = drawable(logs)
    if not panels:
        raise DataError(f"nothing to draw in {', '.join(map(str, logs))}: no {' nor '.join(_PANELS)} was logged yet")
    acted = any(line["env_steps"] for lines in runs.values() for line in lines)
    over = "env_steps" if acted else "global_step"
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).flat
    for axes, metric in zip_longest(grid, panels):
        if metric is None:
            axes.set_visible(False)
            continue
        for colour, (name, lines) in enumerate(runs.items()):
            _curve(axes, metric, lines, over, name, COLOURS[colour % len(COLOURS)])
        axes.set_title(_PANELS[metric], fontsize=11)
        axes.set_xlabel("environment steps" if acted else "updates")
        axes.tick_params(labelbottom=True)
        axes.grid(alpha=0.3)
        if metric == "eval/success_rate":
            axes.set_ylim(-0.03, 1.03)
        elif metric != "eval/return_mean" and all(
            line[metric] > 0 for lines in runs.values() for line in lines if _has(line, metric)
        ):
            axes.set_yscale("log")
    if len(runs) > 1:
        handles, names = figure.axes[0].get_legend_handles_labels()
        beside = max(1, int(90 * columns / 2) // (max(map(len, names)) + 8))
        figure.legend(handles, names, loc="outside lower center", ncols=beside, frameon=False)
    _save(figure, out)


def plot_tuning(found: Tuning, over: str, out: Path) -> None:
    """Draw what each setting of a dial came to, beside the base policy and beside what the best one is worth.

    Args:
        found: A search.
        over: What the dial is called.
        out: Where the PNG goes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    numeric = all(isinstance(one, int | float) and not isinstance(one, bool) for one in found.settings)
    at: Any = list(found.settings) if numeric else list(range(len(found.settings)))
    means = np.array([row.mean for row in found.judged])
    bounds = np.abs(np.array([row.ci95 for row in found.judged]).T - means)
    axes.axhline(found.base.mean, color="0.4", linestyle="--", label="base policy")
    axes.axhspan(*found.base.ci95, color="0.4", alpha=0.12)
    axes.errorbar(at, means, bounds, marker="o", capsize=3, color=COLOURS[0], label="on the seeds that chose")
    if found.held_out is not None:
        best = found.held_out.best
        reach = [[best.mean - best.ci95[0]], [best.ci95[1] - best.mean]]
        style: dict[str, Any] = {"marker": "s", "capsize": 3, "linestyle": "", "color": COLOURS[1]}
        axes.errorbar([at[found.best]], [best.mean], reach, **style, label="best, on others")
        axes.axhline(found.held_out.base.mean, color=COLOURS[1], linestyle=":", label="base policy, on others")
    if not numeric:
        axes.set_xticks(at, [str(one) for one in found.settings], rotation=30, ha="right", fontsize=8)
    axes.set_xlabel(over)
    axes.set_ylabel("success rate, with 95 % interval" if found.metric == "success" else "return, with 95 % interval")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, out)


def plot_paths(
    paths: Sequence[ArrayLike],
    labels: Sequence[str],
    out: Path,
    shapes: Sequence[Shape] = (),
    title: str = "",
    axes_labels: tuple[str, str] = ("x [m]", "y [m]"),
) -> None:
    """Draw paths in the plane, e.g. of a pushed object, coloured by the way they took.

    Args:
        paths: (T, 2) each; a dot marks the first position, a cross the last one of a failed path.
        labels: What each path is counted as, e.g. the way it took, or `FAILED`.
        out: Where the PNG goes.
        shapes: What else lies there, e.g. an obstacle and a goal.
        title: What the picture shows.
        axes_labels: Names and units of the two axes.

    Raises:
        ShapeError: If a path is not (T, 2), or there is not one label for each.
    """
    from matplotlib.figure import Figure

    tracks = [np.asarray(path, dtype=np.float64) for path in paths]
    for index, track in enumerate(tracks):
        if track.ndim != 2 or track.shape[1] != 2 or not len(track):
            raise ShapeError(f"path {index} has shape {track.shape}, needed (T, 2): give the positions x, y over time")
    if len(labels) != len(tracks):
        raise ShapeError(f"{len(labels)} labels for {len(tracks)} paths: give one for each")
    counts = Counter(labels)
    ways = sorted(label for label in counts if label != FAILED)
    order = [*ways, *([FAILED] if FAILED in counts else [])]
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    for shape in shapes:
        _draw_shape(axes, shape)
    for index, way in enumerate(order):
        failed = way == FAILED
        colour = "0.25" if failed else COLOURS[index % len(COLOURS)]
        faint = max(0.3, min(1.0, 12 / counts[way]))
        style: dict[str, Any] = {"color": colour, "alpha": faint, "zorder": 3 if failed else 2}
        for track in (track for track, label in zip(tracks, labels, strict=True) if label == way):
            axes.plot(*track.T, "--" if failed else "-", linewidth=1.3, **style)
            axes.plot(*track[0], "o", markersize=3.5, **style)
            if failed:
                axes.plot(*track[-1], "x", markersize=6, **style)
        axes.plot([], [], "--" if failed else "-", color=colour, label=f"{way} ({counts[way]})")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(axes_labels[0])
    axes.set_ylabel(axes_labels[1])
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    if order:
        figure.legend(loc="outside lower center", ncols=min(4, len(order)), frameon=False)
    _save(figure, out)


def _curve(axes: Any, metric: str, lines: Sequence[Mapping[str, Any]], over: str, name: str, colour: str) -> None:
    """Draw one metric of one run; what was not finite leaves a gap."""
    lines = sorted((line for line in lines if metric in line), key=lambda line: line[over])
    steps = [line[over] for line in lines]
    values = [line[metric] if _has(line, metric) else np.nan for line in lines]
    marker = "o" if len(lines) <= 25 else None  # a single point must be seen
    axes.plot(steps, values, color=colour, marker=marker, markersize=3.5, linewidth=1.5, label=name)
    bounds = (f"{metric}_lo", f"{metric}_hi")
    if lines and all(_has(line, bound) for line in lines for bound in bounds):
        low, high = ([line[bound] for line in lines] for bound in bounds)
        if len(lines) == 1:
            axes.vlines(steps, low, high, color=colour, alpha=0.4, linewidth=3)
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)


def _has(line: Mapping[str, Any], metric: str) -> bool:
    return line.get(metric) is not None


def _names(logs: Sequence[Path]) -> list[str]:
    """Return what tells the runs apart: their folders, without what all paths have in common."""
    folders = [path.resolve().parent for path in logs]
    if len(set(folders)) < len(folders):
        raise DataError(f"a run is named twice: {', '.join(map(str, logs))}")
    shared = os.path.commonpath([folder.parent for folder in folders])
    return [folder.relative_to(shared).as_posix() for folder in folders]


def _draw_shape(axes: Any, shape: Shape) -> None:
    from matplotlib.patches import Circle, Rectangle

    style: dict[str, Any] = {"facecolor": "0.88", "edgecolor": "0.35", "linewidth": 1.2, "zorder": 1}
    (x, y), size = shape["xy"], shape["size"]
    if shape["kind"] == "circle" and isinstance(size, int | float):
        axes.add_patch(Circle((x, y), size, **style))
        top = y + size
    elif shape["kind"] == "box" and not isinstance(size, int | float) and len(size) == 2:
        axes.add_patch(Rectangle((x - size[0] / 2, y - size[1] / 2), *size, **style))
        top = y + size[1] / 2
    else:
        raise ShapeError(f"cannot draw {shape}: give a circle with a radius, or a box with (width, height), as size")
    if "label" in shape:
        axes.annotate(
            shape["label"],
            (x, top),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
        )


def _save(figure: Any, out: Path) -> None:
    with whole_file(out) as draft:
        figure.savefig(draft, format="png", dpi=130)
