"""What late plans do to a policy that knows two ways, and what helps: plans that go on from the last one.

    python benchmarks/rtc.py [--seeds 0 1 2] [--episodes 40] [--latencies 0 2 4 8] [--work DIR] [--out FILE]

A flow policy of 5 Euler steps is cloned on Push, where the disc may pass the block on either side. It plans again as
soon as its last plan has arrived, or in every step. Every plan draws new noise, so that successive plans may want
different ways; a plan that is late meets a state that its beginning did not bring about. Each way to execute it acts
over the same held-out episodes at each latency, in control steps; gains are over the naive way at the same latency and
episode. Seam jump and jerk are those of `robopol eval` (docs/execution.md). Finished runs, and evaluations, are kept in
``--work`` and not done again. The strength of the pull (5) and the mask are those that were published; nothing was
tuned.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import cloning
import numpy as np
import steered
import torch

from robopol import __version__, evaluate, load_policy
from robopol.config import parse
from robopol.evaluation import SEED0, Evaluation
from robopol.execution import (
    ExecutorConfig,
    InpaintingConfig,
    RealTimeChunkingConfig,
    RecedingHorizonConfig,
    TemporalEnsembleConfig,
    WarmStartConfig,
)
from robopol.files import write_json

RESULTS = Path(__file__).parent / "results"
DEMOS, UPDATES, HORIZON = 200, 1500, 24
SMALL = ("policy.net.width=256", "batch_size=128")
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
    words = (*cloning.FLOW, *SMALL, "env=push", f"data.demos.uri={demos}", f"seed={seed}", f"policy.horizon={HORIZON}")
    told = ("policy.sampler.steps=5", f"phases.cloning.updates={UPDATES}", "eval.final_episodes=0")
    cloning.train(run, *words, *told)
    return run


def judge(run: Path, execution: ExecutorConfig, episodes: int, kept: Path) -> Evaluation:
    """Evaluate, unless it was done before."""
    if not kept.exists():
        policy = load_policy(run)
        assert policy.spec.env is not None
        with policy.spec.env.make(episodes) as env:
            write_json(kept, evaluate(policy, env, episodes, SEED0, execution=execution).tree())
    return parse(Evaluation, json.loads(kept.read_text()))


def row(naive: list[Evaluation], found: list[Evaluation]) -> dict[str, Any]:
    table = steered.beside(naive, found) | {"length_mean": float(np.mean([one.length_mean for one in found]))}
    told = [one.execution for one in found if one.execution is not None]
    for name in ("seam_jump", "step_change", "jerk", "starvation", "plans"):
        table[name] = [getattr(one, name) for one in told]
    return table


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
    found: dict[tuple[str, int], list[Evaluation]] = {}
    for seed in args.seeds:
        run = clone(seed, args.work)
        for latency in args.latencies:
            for name, executor in EXECUTORS.items():
                execution = executor.model_copy(update={"latency": latency})
                kept = args.work / f"{name.replace(' ', '-')}-{latency}-{seed}-{args.episodes}.json"
                one = judge(run, execution, args.episodes, kept)
                found.setdefault((name, latency), []).append(one)
                print(f"seed {seed}: {name:28} {latency} late {one.success_rate:6.1%}", flush=True)
    rows = {name: {str(k): row(found[NAIVE, k], found[name, k]) for k in args.latencies} for name in EXECUTORS}
    told = {"robopol": __version__, "torch": torch.__version__, "platform": platform.platform(), "seeds": args.seeds}
    told |= {"episodes": args.episodes, "updates": UPDATES, "demos": DEMOS, "horizon": HORIZON}
    write_json(args.out, told | {"rows": rows})


if __name__ == "__main__":
    main()
