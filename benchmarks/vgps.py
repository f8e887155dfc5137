"""V-GPS (Nakamoto et al. 2024): a frozen policy, its proposals ranked by a critic that was learned offline.

    python benchmarks/vgps.py [--seeds 0 1 2] [--episodes 100] [--out benchmarks/results/vgps.json]

Push, shown by two people: one passes the block on the left with a steady hand, the other on the right with a shaking
one, and mostly fails. A diffusion policy that is cloned from both takes either way. For every training seed it is
frozen; episodes of it, good and bad, are recorded; a critic of whole chunks is fitted to them and to the
demonstrations by IQL and by Cal-QL. Then the policy acts on held-out episodes, the same for every row: with n
proposals of which the critic takes one, or guided by the critic's gradient. How much the hand shakes was chosen so that
the base succeeds less than half of the time, looking at seed 0 in the same held-out episodes. Controls: a random
proposal, and the worst one. A critic that is shown the state of another episode is a row as well; here the better side
is the same in every state (see ``shown_goal.py``).
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cloning
import numpy as np
import steered
import torch
from ledger import Ledger
from torch import Tensor

from robopol import load_episodes, load_policy, make_env
from robopol.execution import BLOCK
from robopol.policies import Policy
from robopol.steering import BestOfConfig, GuideConfig, SteeredPolicy
from robopol.steering.best_of import BestOf
from robopol.steering.objectives import Objective
from robopol.steering.objectives.value import ValueConfig
from robopol.steering.objectives.weighted_sum import WeightedSumConfig

RESULTS = Path(__file__).parent / "results"
DEMOS, BASE_UPDATES, ROLLOUTS = 100, 3000, 300
HANDS = {"left": 0.002, "right": 0.009}
"""Way -> standard deviation of the demonstrator's hand, m."""
CRITIC_UPDATES = {"iql": 3000, "cal_ql": 600}
HELD_OUT = 500_000


class Shuffled(Objective):
    """A control: what a critic says of the plans of an episode in the states of others, drawn anew for every plan."""

    def __init__(self, objective: Objective, records: Path) -> None:
        """Take over the critic's objective, and the states of recorded episodes."""
        super().__init__(objective.config)
        self.objective = objective
        self.obs_shapes = objective.obs_shapes
        self._seen = load_episodes(str(records)).obs
        self._generator = torch.Generator().manual_seed(0)

    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """See `Objective.score`."""
        rows, steps = next(iter(obs.values())).shape[:2]
        drawn = torch.randint(len(next(iter(self._seen.values()))), (rows,), generator=self._generator)
        others = {key: self._seen[key][drawn][:, None].repeat_interleave(steps, 1) for key in obs}
        return self.objective.score(others, windows)


def prepare(seed: int, work: Path) -> tuple[Path, dict[str, Path]]:
    """Return the runs of a seed's frozen policy and of its critics."""
    demos = work / "push.hdf5"
    if not demos.exists():
        parts = []
        for way, noise in HANDS.items():
            parts.append(work / f"push-{way}.hdf5")
            told = (f"way={way}", f"noise={noise}", f"episodes={DEMOS}", f"out={parts[-1]}", "keep=all")
            cloning.robopol("collect", "env=push", *told)
        cloning.robopol("data", "merge", *map(str, parts), f"out={demos}")
    base = work / f"base-{seed}"
    updates = f"phases.cloning.updates={BASE_UPDATES}"
    cloning.train(base, *cloning.DIFFUSION, "env=push", f"data.demos.uri={demos}", f"seed={seed}", updates)
    rollouts = work / f"rollouts-{seed}.hdf5"
    if not rollouts.exists():
        first = 10_000 * (seed + 1)
        words = (f"checkpoint={base}", f"episodes={ROLLOUTS}", f"seed={first}", "keep=all", f"out={rollouts}")
        cloning.robopol("collect", "env=push", *words)
    critics = {}
    for algo in CRITIC_UPDATES:
        critics[algo] = work / f"{algo}-{seed}"
        # Cal-QL asks a policy for the actions that it is to be careful about; IQL asks nobody
        actor = (
            ["policy=none"]
            if algo == "iql"
            else ["algo.alpha=0.05", "policy=gaussian", "policy.horizon=9", "policy.n_action_steps=8"]
        )
        cloning.train(
            critics[algo],
            "env=push",
            *actor,
            f"algo={algo}",
            "model.n_action_steps=8",
            "model.layer_norm=true",
            f"data.demos.uri={demos}",
            f"data.rollouts.uri={rollouts}",
            f"phases.cloning.updates={CRITIC_UPDATES[algo]}",
            "phases.cloning.sources={demos: 0.2, rollouts: 0.8}",
            "eval.final_episodes=0",
            f"seed={seed}",
        )
    return base, critics


def rows(base: Policy, critics: Mapping[str, Path], records: Path) -> dict[str, Policy]:
    """Return every policy that is compared, by name."""
    found: dict[str, Policy] = {"base": base}
    for algo, run in critics.items():
        value = ValueConfig(critic=str(run))
        counts = (4, 16, 64) if algo == "iql" else (16,)
        for n in counts:
            found[f"{algo}, best of {n}"] = base.steered(BestOfConfig(objective=value, n=n))
        if algo == "iql":
            for share in (0.3, 1.0):
                steering = BestOfConfig(objective=value, n=16, temperature=share, relative=True)
                found[f"{algo}, 16, temperature {share} std"] = base.steered(steering)
            config = BestOfConfig(objective=value, n=16)
            found["another state's critic, best of 16"] = SteeredPolicy(
                base, [BestOf(config, Shuffled(value.build(base), records), None)]
            )
            guide = GuideConfig(objective=value, scale=2.0, cap=0.3)
            found["iql, guided by its gradient"] = base.steered(guide)
            against = WeightedSumConfig(objectives=(value,), weights=(-1.0,))
            found["iql, worst of 16"] = base.steered(BestOfConfig(objective=against, n=16))
    found["random of 16"] = base.steered(BestOfConfig(n=16))
    return found


CURVES = (
    steered.Curve(
        "proposals, ranked by Q", {1: "base"} | {n: f"iql, best of {n}" for n in (4, 16, 64)}, logarithmic=True
    ),
    steered.Curve(
        "temperature of 16, std", {0: "iql, best of 16"} | {t: f"iql, 16, temperature {t} std" for t in (0.3, 1.0)}
    ),
)


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    tables, budget = tree["tables"], tree["setting"]["budget"]
    return [
        "## Proposals ranked by a critic",
        "",
        "V-GPS on Push, shown by a steady hand on the left and a shaking one on the right; the critic is learned from "
        f"{budget['rollouts']} episodes of the frozen policy and the demonstrations. `python benchmarks/vgps.py`",
        "",
        "The worst of the proposals is the control that must lose. A critic that is shown the state of another episode "
        "is none here: the steady hand's side is the better one in every state. Where it depends on the state, such a "
        "critic is worth nothing (What is better depends on the state, below).",
        "",
        *steered.compared(tables, "base"),
        *steered.picture("vgps", "Success over proposals and temperature"),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path("runs/vgps"))
    parser.add_argument("--out", type=Path, default=RESULTS / "vgps.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    budget = {
        "demos": {way: DEMOS for way in HANDS},
        "noise": HANDS,
        "base_updates": BASE_UPDATES,
        "rollouts": ROLLOUTS,
        "critic_updates": CRITIC_UPDATES,
    }
    ledger = Ledger(args.out, {"task": "push", "budget": budget, "episodes": args.episodes})
    candidates: dict[str, Policy] = {}
    for seed in args.seeds:
        base, critics = prepare(seed, args.work)
        policy = load_policy(base)
        assert policy.spec.env is not None
        with make_env(policy.spec.env.id, BLOCK, **policy.spec.env.options) as env:
            here = rows(policy, critics, args.work / "push.hdf5")
            candidates |= here
            for name, one in here.items():
                kept = ledger.measure(name, seed, lambda one=one: steered.measured(one, env, args.episodes, HELD_OUT))
                print(f"seed {seed}: {name:36} {np.mean(steered.succeeded(kept)):.1%}", flush=True)
    ledger.tables["rows"] = steered.table(ledger, "base", ledger.measured)
    ledger.tables["plan_ms"] = steered.costs(candidates)
    ledger.write()
    steered.draw(ledger.tables["rows"], CURVES, "base", args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
