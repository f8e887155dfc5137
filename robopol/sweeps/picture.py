"""A sweep as a picture: scores on the way, and where they ended."""

from collections.abc import Sequence
from pathlib import Path

from robopol.files import whole_file
from robopol.sweeps.aggregate import Score, Setting, curves
from robopol.training.plots import COLOURS


def plot_sweep(chosen: Sequence[Setting], score: Score, out: Path) -> None:
    """Draw the interquartile means of some settings, with 95 % intervals, on the way and at the end.

    Args:
        chosen: At least one.
        score: What is drawn.
        out: Where the PNG goes.
    """
    from matplotlib.figure import Figure

    lines = [curves(setting, score) for setting in chosen]
    on_the_way = any(lines)
    figure = Figure(
        figsize=(10.4 if on_the_way else 5.2, 1.8 + 0.35 * len(chosen) + 1.6 * on_the_way), layout="constrained"
    )
    panels = list(figure.subplots(1, 1 + on_the_way, squeeze=False)[0])
    if on_the_way:
        axes = panels.pop(0)
        for number, (setting, line) in enumerate(zip(chosen, lines, strict=True)):
            steps, colour = list(line), COLOURS[number % len(COLOURS)]
            axes.plot(steps, [line[step][0] for step in steps], color=colour, label=setting.name)
            axes.fill_between(
                steps, [line[s][1] for s in steps], [line[s][2] for s in steps], color=colour, alpha=0.15, linewidth=0
            )
        axes.set_xlabel("steps")
        axes.set_ylabel(f"IQM of {score}")
        axes.grid(alpha=0.3)
    (ends,) = panels
    for number, setting in enumerate(chosen):
        row, colour = setting.row(), COLOURS[number % len(COLOURS)]
        every = [value for values in row["scores"].values() for value in values]
        ends.plot(every, [number] * len(every), "o", color=colour, alpha=0.35, markersize=4)
        low, high = row["iqm_ci95"] or (row["iqm"], row["iqm"])
        ends.plot([low, high], [number, number], color=colour, linewidth=6, alpha=0.4, solid_capstyle="butt")
        ends.plot([row["iqm"]], [number], "|", color=colour, markersize=14, markeredgewidth=2)
    ends.set_yticks(range(len(chosen)), [setting.name for setting in chosen])
    ends.set_ylim(len(chosen) - 0.5, -0.5)
    ends.set_xlabel(f"{score} at the end: runs, and their IQM with 95 % interval")
    ends.grid(alpha=0.3, axis="x")
    with whole_file(out) as draft:
        figure.savefig(draft, format="png", dpi=110)
