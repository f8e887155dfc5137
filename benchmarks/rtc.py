"""What late plans do to a policy that knows several ways, and what helps: plans that go on from the last one.

    python benchmarks/rtc.py [--seeds 0 1 2] [--episodes 40] [--latencies 0 2 4 8] [--work DIR] [--out FILE]

A flow policy of 5 Euler steps is cloned on Push, where the disc may pass the block on either side. It plans again as
soon as its last plan has arrived, or in every step. Every plan draws new noise, so that successive plans may want
different ways; a plan that is late meets a state that its beginning did not bring about. Each way to execute plans
acts over the same held-out episodes at each latency, in control steps; gains are over the naive way at the same
latency and episode. Seam jump and jerk are those of `robopol eval` (docs/execution.md). Finished runs are kept in
``--work``, and measurements in ``--out``. The strength of the pull (5) and the mask are those that were published;
nothing was tuned.
"""

import argparse
from pathlib import Path
from typing import Any

import cloning
import intervals
import sections
import torch
from ledger import Ledger

from robopol import evaluate, load_policy
from robopol.evaluation import SEED0
from robopol.execution import (
    ExecutorConfig,
    InpaintingConfig,
    RealTimeChunkingConfig,
    RecedingHorizonConfig,
    TemporalEnsembleConfig,
    WarmStartConfig,
)

RESULTS = Path(__file__).parent / "results"
DEMOS, UPDATES, HORIZON = 200, 4000, 24
NAIVE = "receding horizon"
EXECUTORS: dict[str, ExecutorConfig] = {
    NAIVE: RecedingHorizonConfig(n_action_steps=1),
    "receding horizon, Ta = 8": RecedingHorizonConfig(n_action_steps=8),
    "temporal ensemble": TemporalEnsembleConfig(),
    "warm start, 2 of 5 steps": WarmStartConfig(steps=2),
    "inpainting": InpaintingConfig(),
    "RTC": RealTimeChunkingConfig(),
    "RTC, no Jacobian": RealTimeChunkingConfig(jacobian=False),
}


def clone(seed: int, work: Path) -> Path:
    demos, run = work / "demos.hdf5", work / f"flow-{seed}"
    if not demos.exists():
        cloning.robopol("collect", "env=push", f"out={demos}", f"episodes={DEMOS}")
    words = (*cloning.FLOW, "env=push", f"data.demos.uri={demos}", f"seed={seed}", f"policy.horizon={HORIZON}")
    told = ("policy.sampler.steps=5", f"phases.cloning.updates={UPDATES}", "eval.final_episodes=0")
    cloning.train(run, *words, *told)
    return run


def measured(run: Path, execution: ExecutorConfig, episodes: int) -> dict[str, Any]:
    """Evaluate a policy, and return what a ledger keeps of it: a 0 or 1 for each episode, and how it was executed."""
    policy = load_policy(run)
    assert policy.spec.env is not None
    with policy.spec.env.make(episodes) as env:
        found = evaluate(policy, env, episodes, SEED0, execution=execution)
    assert found.execution is not None
    told = {
        name: getattr(found.execution, name) for name in ("seam_jump", "step_change", "jerk", "starvation", "plans")
    }
    success = "".join(str(int(outcome.success)) for outcome in found.outcomes)
    return told | {"success": success, "length_mean": found.length_mean}


def table(ledger: Ledger, latency: int) -> dict[str, Any]:
    """Return, and print, every executor beside the naive one at the same latency."""

    def won(name: str) -> list[list[float]]:
        return [[float(digit) for digit in kept["success"]] for kept in ledger.of(named(name, latency))]

    found = {}
    for name in EXECUTORS:
        wins, rows = won(name), ledger.of(named(name, latency))
        found[name] = {
            **intervals.success(wins),
            **intervals.gain(won(NAIVE), wins),
            "seam_jump": [kept["seam_jump"] for kept in rows],
            "jerk": [kept["jerk"] for kept in rows],
        }
        print(f"{latency} late: {name:28} {found[name]['success_rate']:6.1%} gain {sections.gained(found[name])}")
    return found


def named(name: str, latency: int) -> str:
    return f"{name}, {latency} late"


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    seeds = max(sections.seeds(rows) for rows in tree["tables"].values())
    lines = [
        "## Late plans, and plans that go on from the last one",
        "",
        f"A flow policy of 5 steps on Push, {seeds} training seeds, "
        f"{tree['setting']['episodes']} held-out episodes each, {tree['setting']['budget']['horizon'] - 1} actions a "
        "plan; it plans again as soon as a plan "
        "has arrived (Ta = 8: every 8 steps). Success with the 95% interval, and the points gained over the first row "
        "on the same episodes, with the paired bootstrap interval. Seam jump and jerk are of all steps, those of "
        "failures too; see [execution.md](execution.md). `python benchmarks/rtc.py`",
        "",
    ]
    for late, rows in tree["tables"].items():
        lines += [
            f"| {late} control steps late | success | by seed | gained | seam jump, by seed | jerk / 1e6, by seed |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            seams = " ".join("-" if value is None else f"{value:.2f}" for value in row["seam_jump"])
            jerks = " ".join(f"{value / 1e6:.2f}" for value in row["jerk"])
            cells = (name, sections.percent(row), sections.by_seed(row), sections.gained(row), seams, jerks)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--latencies", nargs="+", type=int, default=[0, 2, 4, 8])
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--work", type=Path, default=Path("runs/rtc"))
    parser.add_argument("--out", type=Path, default=RESULTS / "rtc.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    budget = {"demos": DEMOS, "updates": UPDATES, "horizon": HORIZON}
    ledger = Ledger(args.out, {"budget": budget, "episodes": args.episodes})
    for seed in args.seeds:
        run = clone(seed, args.work)
        for latency in args.latencies:
            for name, executor in EXECUTORS.items():
                late = executor.model_copy(update={"latency": latency})
                ledger.measure(
                    named(name, latency), seed, lambda run=run, late=late: measured(run, late, args.episodes)
                )
            print(f"seed {seed}, {latency} late", flush=True)
    ledger.tables = {str(latency): table(ledger, latency) for latency in args.latencies}
    ledger.write()


if __name__ == "__main__":
    main()
