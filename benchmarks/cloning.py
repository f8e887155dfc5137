"""What the behaviour-cloning benchmarks share: runs of the command line that are finished once, and their summaries."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import intervals
import numpy as np

from robopol.evaluation.statistics import bootstrap_mean

COMMON = ["runtime.threads=1", "runtime.matmul=medium", "eval.videos=0"]
DIFFUSION = ["experiment=demo", "policy/net=mlp"]
FLOW = [
    "algo.lr=1e-3",
    "policy=flow",
    "policy/net=mlp",
    "policy/sampler=euler",
    "policy.net.width=512",
    "policy.net.blocks=2",
]


def robopol(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "robopol.cli", *words], check=True, stdout=subprocess.DEVNULL)


def train(run: Path, *words: str) -> None:
    """Train a run, go on with one that was interrupted, leave one that is finished."""
    if not run.exists():
        robopol("train", *COMMON, *words, f"run={run}")
    elif not (run / "summary.json").exists():
        robopol("train", f"resume={run}")


KEPT = (
    "success_rate",
    "return_mean",
    "return_ci95",
    "episodes",
    "ways",
    "parameters",
    "updates",
    "train_seconds",
)
"""What is kept of a run's summary."""


def summary(run: Path) -> dict[str, Any]:
    """Return what `together` reads of a finished run."""
    tree = json.loads((run / "summary.json").read_text())
    return {key: tree[key] for key in KEPT}


def judge(runs: list[Path]) -> dict[str, Any]:
    """Put the runs of several seeds together; see `together`."""
    return together([summary(run) for run in runs])


def together(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the seeds together: an interval over episodes, which all seeds meet, and the spread between seeds."""
    rates = [one["success_rate"] for one in summaries]
    returns = [one["return_mean"] for one in summaries]
    rate, interval = intervals.share(rates, summaries[0]["episodes"])
    ways: dict[str, int] = {}
    for one in summaries:
        for way, count in one["ways"].items():
            ways[way] = ways.get(way, 0) + count
    return {
        "success_rate": rate,
        "success_ci95": interval,
        "by_seed": rates,
        "seeds_ci95": bootstrap_mean(rates) if len(rates) > 1 else None,
        "return_mean": float(np.mean(returns)),
        "returns": returns,
        "return_ci95": summaries[0]["return_ci95"] if len(summaries) == 1 else bootstrap_mean(returns),
        "ways": ways,
        "episodes": sum(one["episodes"] for one in summaries),
        "parameters": summaries[0]["parameters"],
        "updates": summaries[0]["updates"],
        "train_seconds": float(np.median([one["train_seconds"] for one in summaries])),
    }
