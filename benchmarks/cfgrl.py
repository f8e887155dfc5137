"""CFGRL (Frans et al. 2025): a policy that is told which actions were good, and its guidance weight as a dial.

    python benchmarks/cfgrl.py [--seeds 0 1 2] [--episodes 200] [--out benchmarks/results/cfgrl.json]

The data are those of the benchmark of V-GPS: few demonstrations of Push and many episodes, good and bad, of a policy
cloned from them. Its critic labels every step; a policy is trained with that label as a goal that it also learns to
do without. Beside it: the same policy on all of it without labels, and one whose labels were drawn by chance.
"""

import argparse
from pathlib import Path
from typing import Any

import cloning
import numpy as np
import sections
import steered
import torch
import vgps
from ledger import Ledger

from robopol import load_episodes, load_policy
from robopol.data import save_episodes
from robopol.execution import BLOCK
from robopol.models.labels import label
from robopol.policies import Policy
from robopol.steering import GoalWeightConfig

RESULTS = Path(__file__).parent / "results"
WEIGHTS = (0.0, 1.0, 1.5, 2.0, 3.0)
UPDATES = 3000
TOLD = (
    "policy.guidance.keys=[optimal]",
    "policy.guidance.drop=0.1",
    "env.wrappers=[{kind: constant, key: optimal, value: [1.0]}]",
)


def prepare(seed: int, work: Path) -> dict[str, Path]:
    """Return the runs of a seed: told by the critic, told by chance, and not told."""
    _, critics = vgps.prepare(seed, work)
    data = work / f"all-{seed}.hdf5"
    if not data.exists():
        cloning.robopol("data", "merge", str(work / "push.hdf5"), str(work / f"rollouts-{seed}.hdf5"), f"out={data}")
    labelled, random = work / f"labelled-{seed}.hdf5", work / f"random-{seed}.hdf5"
    if not labelled.exists():
        cloning.robopol("data", "label", str(data), f"critic={critics['iql']}", f"out={labelled}")
    if not random.exists():
        share = load_episodes(str(labelled)).obs["optimal"].mean().item()
        episodes = load_episodes(str(data))
        drawn = torch.rand(episodes.num_steps, generator=torch.Generator().manual_seed(seed)) < share
        save_episodes(label(episodes, drawn, "optimal"), str(random))
    runs = {}
    for name, source, more in (("told", labelled, TOLD), ("told by chance", random, TOLD), ("not told", data, ())):
        runs[name] = work / f"{name.replace(' ', '-')}-{seed}"
        words = ("env=push", f"data.demos.uri={source}", f"seed={seed}", f"phases.cloning.updates={UPDATES}", *more)
        cloning.train(runs[name], *cloning.DIFFUSION, *words, "eval.final_episodes=0")
    return runs


def rows(name: str, policy: Policy) -> dict[str, Policy]:
    """Return every policy that is made of one, by name: itself, or told with every weight."""
    if name == "not told":
        return {name: policy}
    weights = WEIGHTS if name == "told" else (3.0,)
    return {f"{name}, weight {weight:g}": policy.steered(GoalWeightConfig(weight=weight)) for weight in weights}


CURVES = (steered.Curve("weight of being told", {weight: f"told, weight {weight:g}" for weight in WEIGHTS}),)


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    tables = tree["tables"]
    return [
        "## Told which actions were good",
        "",
        "CFGRL on the data of V-GPS: labels by its critic, and the guidance weight as a dial; gains over the same "
        f"policy without labels, {sections.seeds(tables['rows'])} training seeds. `python benchmarks/cfgrl.py`",
        "",
        "Being told is worth far more than extrapolating: weights above 1, which improve further where it was "
        "published, cost here.",
        "",
        *steered.compared(tables, "not told"),
        *steered.picture("cfgrl", "Success over the weight"),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/vgps"), help="that of the benchmark of V-GPS")
    parser.add_argument("--out", type=Path, default=RESULTS / "cfgrl.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    ledger = Ledger(args.out, {"task": "push", "updates": UPDATES, "episodes": args.episodes})
    candidates: dict[str, Policy] = {}
    for seed in args.seeds:
        for name, run in prepare(seed, args.work).items():
            policy = load_policy(run)
            assert policy.spec.env is not None
            here = rows(name, policy)
            candidates |= here
            with policy.spec.env.make(BLOCK) as env:
                for row, one in here.items():
                    how = lambda one=one: steered.measured(one, env, args.episodes, vgps.HELD_OUT)  # noqa: E731
                    kept = ledger.measure(row, seed, how)
                    print(f"seed {seed}: {row:24} {np.mean(steered.succeeded(kept)):.1%}", flush=True)
    ledger.tables["rows"] = steered.table(ledger, "not told", ledger.measured)
    ledger.tables["plan_ms"] = steered.costs(candidates)
    ledger.write()
    steered.draw(ledger.tables["rows"], CURVES, "not told", args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
