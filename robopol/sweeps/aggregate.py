"""What the runs of a sweep came to: for each setting the interquartile mean over its seeds and worlds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from robopol.errors import DataError
from robopol.evaluation.statistics import iqm, stratified_iqm
from robopol.files import write_json
from robopol.sweeps.grid import Point
from robopol.training.loggers import read_metrics

Score = Literal["success_rate", "return_mean"]
SEED, WORLDS = "seed", ("env", "env.id")
"""What is averaged over, each value of the others being a setting."""


class Setting(NamedTuple):
    """One setting of a sweep.

    Attributes:
        values: What is swept, seeds and worlds apart -> its value.
        points: Its finished runs.
        scores: World -> the score of each of its runs.
    """

    values: dict[str, str]
    points: list[Point]
    scores: dict[str, list[float]]

    @property
    def name(self) -> str:
        """Its values, in words."""
        return ", ".join(f"{key}={value}" for key, value in self.values.items()) or "all runs"

    def row(self) -> dict[str, Any]:
        """Return its figures."""
        strata = list(self.scores.values())
        every = [score for scores in strata for score in scores]
        return {
            "values": self.values,
            "runs": len(every),
            "iqm": iqm(every),
            "iqm_ci95": stratified_iqm(strata) if len(every) > len(strata) else None,
            "mean": float(np.mean(every)),
            "scores": self.scores,
        }


def settings(points: Sequence[Point], score: Score) -> list[Setting]:
    """Group finished runs by what is swept, apart from seeds and worlds.

    Args:
        points: The runs of a sweep; those that are not finished are left out.
        score: What of a run's summary is looked at.

    Raises:
        DataError: If a run was not evaluated, or its summary is damaged.
    """
    found: dict[tuple[tuple[str, str], ...], Setting] = {}
    for point in points:
        if not point.finished:
            continue
        values = {key: value for key, value in point.values.items() if key != SEED and key not in WORLDS}
        setting = found.setdefault(tuple(values.items()), Setting(values, [], {}))
        setting.points.append(point)
        setting.scores.setdefault(_world(point), []).append(_score(point, score))
    return list(found.values())


def curves(setting: Setting, score: Score) -> dict[int, tuple[float, float, float]]:
    """Return a setting's score on the way: step -> interquartile mean and the bounds of its interval.

    Steps are environment steps where the runs acted, else updates; those that not every run logged are left out.
    """
    runs: dict[str, list[dict[int, float]]] = {}
    for point in setting.points:
        curve = _curve(read_metrics(point.folder / "metrics.jsonl"), f"eval/{score}")
        runs.setdefault(_world(point), []).append(curve)
    every = [curve for curves in runs.values() for curve in curves]
    steps = sorted(set.intersection(*(set(curve) for curve in every))) if every else []
    found = {}
    for step in steps:
        strata = [[curve[step] for curve in curves] for curves in runs.values()]
        found[step] = (iqm([curve[step] for curve in every]), *stratified_iqm(strata, resamples=2000))
    return found


def report(chosen: Sequence[Setting], score: Score, out: Path) -> None:
    """Write the figures of a sweep as JSON and print them, best first.

    Args:
        chosen: Its settings.
        score: What was looked at.
        out: The JSON.
    """
    rows = sorted((setting.row() for setting in chosen), key=lambda row: -row["iqm"])
    write_json(out, {"score": score, "settings": rows})
    names = {id(row): ", ".join(f"{k}={v}" for k, v in row["values"].items()) or "all runs" for row in rows}
    width = max(map(len, names.values()), default=0)
    print(f"{'setting':{width}}  runs  IQM of {score}  [95%]  mean")
    for row in rows:
        interval = "" if row["iqm_ci95"] is None else "[{:.4g}, {:.4g}]".format(*row["iqm_ci95"])
        print(f"{names[id(row)]:{width}}  {row['runs']:4}  {row['iqm']:.4g}  {interval}  {row['mean']:.4g}")


def _world(point: Point) -> str:
    """Return the world that a run was swept into; "" if they all are in one."""
    return next((point.values[key] for key in WORLDS if key in point.values), "")


def _score(point: Point, score: Score) -> float:
    file = point.folder / "summary.json"
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): delete it and sweep again") from error
    if score not in summary:
        raise DataError(f"{file} has no {score}: the run was not evaluated (set eval.final_episodes to at least 1)")
    return float(summary[score])


def _curve(lines: Sequence[Mapping[str, Any]], metric: str) -> dict[int, float]:
    acted = any(line["env_steps"] for line in lines)
    over = "env_steps" if acted else "global_step"
    return {int(line[over]): float(line[metric]) for line in lines if line.get(metric) is not None}
