"""What executing the same plans in other ways, and late, does to success, smoothness and cost.

    python benchmarks/execution.py [--tasks push pick_place] [--seeds 0] [--episodes 200] [--latencies 0 1 2 4]
        [--runs DIR ...] [--work DIR] [--out FILE]

A diffusion policy (`experiment=demo`) is cloned for each task and training seed, or taken from ``--runs``, and
evaluated with each executor at each latency, in control steps, over the same held-out episodes. Network evaluations
of a control step are counted over the first ten of them. Finished runs are kept in ``--work`` and not trained again.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import cloning
import numpy as np
import sections
import torch
from torch import Tensor

from robopol import __version__, evaluate, load_policy
from robopol.evaluation import SEED0, Evaluation
from robopol.evaluation.statistics import wilson
from robopol.execution import (
    ExecutorConfig,
    OpenLoopConfig,
    RecedingHorizonConfig,
    TemporalEnsembleConfig,
    WarmStartConfig,
)
from robopol.files import write_json
from robopol.networks.denoiser import Walk
from robopol.policies.generative import GenerativePolicy

RESULTS = Path(__file__).parent / "results"
DEMOS = {"push": 200, "pick_place": 500}
UPDATES = 3000

EXECUTORS: dict[str, ExecutorConfig] = {
    "receding horizon": RecedingHorizonConfig(),
    "receding horizon, Ta = 1": RecedingHorizonConfig(n_action_steps=1),
    "open loop": OpenLoopConfig(),
    "temporal ensemble": TemporalEnsembleConfig(),
    "temporal ensemble, m = -0.5": TemporalEnsembleConfig(m=-0.5),
    "warm start, 1 step": WarmStartConfig(steps=1),
    "warm start, 3 steps": WarmStartConfig(steps=3),
    "warm start, 3 steps, noised": WarmStartConfig(steps=3, renoise=True),
}


def clone(task: str, seed: int, work: Path, updates: int) -> Path:
    demos, run = work / f"{task}.hdf5", work / f"{task}-{updates}-{seed}"
    if not demos.exists():
        cloning.robopol("collect", f"env={task}", f"out={demos}", f"episodes={DEMOS[task]}")
    words = [*cloning.DIFFUSION, f"env={task}", f"data.demos.uri={demos}", f"seed={seed}"]
    cloning.train(run, *words, f"phases.cloning.updates={updates}", "eval.final_episodes=0")
    return run


def cost(run: Path, execution: ExecutorConfig, episodes: int) -> float:
    """Count the network's evaluations in a control step, with one episode at a time."""
    policy, calls = load_policy(run), 0
    assert isinstance(policy, GenerativePolicy)
    assert policy.spec.env is not None
    prepare = policy.field.prepare

    def counting(times: Tensor, cond: Tensor) -> Walk:
        network = prepare(times, cond)

        def counted(x: Tensor, index: int) -> Tensor:
            nonlocal calls
            calls += 1
            return network(x, index)

        return counted

    policy.field.prepare = counting  # type: ignore[method-assign]
    with policy.spec.env.make(1) as env:
        found = evaluate(policy, env, episodes, SEED0, execution=execution)
    return calls / (found.length_mean * episodes)


def judge(runs: list[Path], execution: ExecutorConfig, episodes: int) -> dict[str, Any]:
    found: list[Evaluation] = []
    for run in runs:
        policy = load_policy(run)
        assert policy.spec.env is not None
        with policy.spec.env.make(32) as env:
            found.append(evaluate(policy, env, episodes, SEED0, execution=execution))
    wins = sum(outcome.success for one in found for outcome in one.outcomes)
    row: dict[str, Any] = {
        "success_rate": wins / (len(runs) * episodes),
        "success_ci95": wilson(wins, len(runs) * episodes),
        "by_seed": [one.success_rate for one in found],
        "length_mean": float(np.mean([one.length_mean for one in found])),
    }
    told = [one.execution for one in found if one.execution is not None]
    for name in ("seam_jump", "step_change", "jerk", "starvation"):
        values = [value for one in told if (value := getattr(one, name)) is not None]
        row[name] = float(np.mean(values)) if values else None
    return row | {"evaluations": cost(runs[0], execution, min(10, episodes))}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## How plans are executed, and what latency does",
        "",
        "A diffusion policy of 10 steps; success with plans that arrive so many control steps late. Seam jump, jerk "
        "and network evaluations without latency; see [execution.md](execution.md). `python benchmarks/execution.py`",
        "",
    ]
    for task, found in tree["tasks"].items():
        late = list(next(iter(found["rows"].values())))
        lines += [
            f"| {task}, {found['runs']} seed(s) | {' | '.join(f'{k} late' for k in late)} | seam jump | jerk / 1e6 | "
            "evaluations a step |",
            "|---" * (len(late) + 4) + "|",
        ]
        for name, row in found["rows"].items():
            now = row["0"]
            lines.append(
                f"| {name} | {' | '.join(sections.percent(row[k]) for k in late)} | {now['seam_jump']:.2f} | "
                f"{now['jerk'] / 1e6:.2f} | {now['evaluations']:.1f} |"
            )
        lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(DEMOS), choices=list(DEMOS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--latencies", nargs="+", type=int, default=[0, 1, 2, 4])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--runs", nargs="+", type=Path, help="finished runs of one task, instead of training")
    parser.add_argument("--work", type=Path, default=Path("runs/execution"))
    parser.add_argument("--out", type=Path, default=RESULTS / "execution.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    tree = json.loads(args.out.read_text()) if args.out.exists() else {"tasks": {}}
    tree |= {"robopol": __version__, "torch": torch.__version__, "platform": platform.platform()}
    for task in args.tasks:
        runs = args.runs or [clone(task, seed, args.work, args.updates) for seed in args.seeds]
        rows: dict[str, Any] = {}
        print(f"{task}, {len(runs)} x {args.episodes} episodes")
        for name, execution in EXECUTORS.items():
            for latency in args.latencies:
                row = judge(runs, execution.model_copy(update={"latency": latency}), args.episodes)
                rows.setdefault(name, {})[str(latency)] = row
                low, high = row["success_ci95"]
                figures = {key: row[key] for key in ("seam_jump", "step_change", "jerk", "starvation", "evaluations")}
                told = " ".join(f"{key} {'-' if value is None else f'{value:.3g}'}" for key, value in figures.items())
                print(f"  {name:28} {latency} late {row['success_rate']:6.1%} [{low:.1%}, {high:.1%}]  {told}")
        tree["tasks"][task] = {"episodes": args.episodes, "runs": len(runs), "rows": rows}
        write_json(args.out, tree)


if __name__ == "__main__":
    main()
