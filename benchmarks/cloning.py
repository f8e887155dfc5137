"""What the behaviour-cloning benchmarks share: runs of the command line that are finished once, and their summaries."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from robopol.evaluation.statistics import bootstrap_mean, wilson

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


def judge(runs: list[Path]) -> dict[str, Any]:
    """Put the seeds together: a Wilson interval over all episodes, and the spread between seeds."""
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    rates = [summary["success_rate"] for summary in summaries]
    returns = [summary["return_mean"] for summary in summaries]
    episodes = sum(summary["episodes"] for summary in summaries)
    wins = round(sum(summary["success_rate"] * summary["episodes"] for summary in summaries))
    ways: dict[str, int] = {}
    for summary in summaries:
        for way, count in summary["ways"].items():
            ways[way] = ways.get(way, 0) + count
    return {
        "success_rate": wins / episodes,
        "success_ci95": wilson(wins, episodes),
        "by_seed": rates,
        "seeds_ci95": bootstrap_mean(rates) if len(rates) > 1 else None,
        "return_mean": float(np.mean(returns)),
        "returns": returns,
        "return_ci95": summaries[0]["return_ci95"] if len(runs) == 1 else bootstrap_mean(returns),
        "ways": ways,
        "episodes": episodes,
        "parameters": summaries[0]["parameters"],
        "updates": summaries[0]["updates"],
        "train_seconds": float(np.median([summary["train_seconds"] for summary in summaries])),
    }
