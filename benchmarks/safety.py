"""Feasibility (FISOR; Zheng et al. 2024) as a steering: a frozen policy that knows nothing of a forbidden disc.

    python benchmarks/safety.py [--seeds 0 1 2] [--episodes 200] [--out benchmarks/results/safety.json]

A policy is cloned in MultiGoal without obstacles and put into the world with a disc that costs. Its own episodes
there, in which it walks through the disc, teach a feasibility critic what cannot be kept safe; then it acts again,
choosing among n proposals: any feasible one, the safest one, and, as controls, any one, and what a critic says that
sees another episode.
"""

import argparse
from pathlib import Path
from typing import Any

import cloning
import intervals
import numpy as np
import sections
import steered
import torch
import vgps
from ledger import Ledger

from robopol import load_policy, make_env
from robopol.evaluation import SEED0, Recorder, rollout
from robopol.evaluation.statistics import bootstrap_mean
from robopol.execution import BLOCK, RecedingHorizon
from robopol.policies import Policy
from robopol.steering import BestOfConfig, SteeredPolicy
from robopol.steering.best_of import BestOf
from robopol.steering.objectives.feasible import FeasibleConfig

RESULTS = Path(__file__).parent / "results"
WORLD = {"obstacles": "disc", "reward": "safe"}
DEMOS, UPDATES, ROLLOUTS, CRITIC_UPDATES = 400, 3000, 400, 4000
COUNTS = (4, 16, 64)


def prepare(seed: int, work: Path) -> tuple[Path, Path]:
    """Return the runs of a seed's policy and of its critic."""
    demos = work / "demos.hdf5"
    if not demos.exists():
        cloning.robopol("collect", "env=multi_goal", f"episodes={DEMOS}", f"out={demos}")
    base = work / f"base-{seed}"
    words = ("env=multi_goal", f"seed={seed}", f"phases.cloning.updates={UPDATES}")
    cloning.train(base, *cloning.DIFFUSION, *words, f"data.demos.uri={demos}", "eval.final_episodes=0")
    rollouts = work / f"rollouts-{seed}.hdf5"
    world = [f"env.options.{name}={value}" for name, value in WORLD.items()]
    if not rollouts.exists():
        more = (f"checkpoint={base}", f"episodes={ROLLOUTS}", f"seed={10_000 * (seed + 1)}", "keep=all")
        cloning.robopol("collect", "env=multi_goal", *world, *more, f"out={rollouts}")
    critic = work / f"fisor-{seed}"
    # a step in the disc takes 0.1 off a reward that is at most the 0.05 of the way made in it, and at least -0.05
    violations = "algo.violations=[{kind: cost, threshold: -0.051}]"
    told = ("env=multi_goal", *world, "policy=none", "algo=fisor", violations, "model.n_action_steps=8")
    cloning.train(
        critic,
        *told,
        f"data.demos.uri={rollouts}",
        f"phases.cloning.updates={CRITIC_UPDATES}",
        "eval.final_episodes=0",
        f"seed={seed}",
    )
    return base, critic


def cost(policy: Policy, seeds: range) -> list[int]:
    """Return the steps in the disc of each episode."""
    with make_env("robopol/MultiGoal-v0", BLOCK, backend="serial", **WORLD) as env:
        recorder = Recorder(env, "policy")
        rollout(RecedingHorizon(policy), env, seeds, recorder=recorder)
        episodes = recorder.episodes()
        world: Any = env.envs[0]
        state = torch.cat([episodes.obs["state"][:, :2], episodes.final_obs["state"][:, :2]]).numpy()
        inside = np.asarray(world.cost(state.astype(np.float64)))[: episodes.num_steps]
    starts, lengths = episodes.starts.tolist(), episodes.lengths.tolist()
    return [int(inside[start : start + length].sum()) for start, length in zip(starts, lengths, strict=True)]


def rows(base: Policy, critic: Path, records: Path) -> dict[str, Policy]:
    """Return every policy that is compared, by name."""
    feasible = FeasibleConfig(critic=str(critic))
    found: dict[str, Policy] = {"base": base}
    for n in COUNTS:
        found[f"any feasible of {n}"] = base.steered(BestOfConfig(constraint=feasible, n=n))
    found["safest of 16"] = base.steered(BestOfConfig(objective=feasible, n=16))
    found["any of 16"] = base.steered(BestOfConfig(n=16))
    other = BestOf(BestOfConfig(objective=feasible, n=16), vgps.Shuffled(feasible.build(base), records), None)
    found["safest of 16 in another's state"] = SteeredPolicy(base, [other])
    return found


def paid(kept: dict[str, Any]) -> list[float]:
    """Return the cost of each episode of a measurement."""
    return [float(value) for value in kept["cost"].split(",")]


COST = steered.Figure("steps in the disc, an episode", "cost", "cost_ci95", "cost_by_seed")
JERK = steered.Figure("jerk / 1e6", "jerk", "jerk_ci95", "jerk_by_seed", unit=1e6)
CURVES = (
    steered.Curve(
        "proposals, any feasible one acts",
        {1: "base"} | {n: f"any feasible of {n}" for n in COUNTS},
        COST,
        logarithmic=True,
    ),
)


def costly(tables: dict[str, Any]) -> list[str]:
    """Return a table of what was paid, and of success."""
    lines = [
        "| policy | steps in the disc, an episode | with any | jerk / 1e6 | success | a plan (to the base's) |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in tables["rows"].items():
        low, high = row["cost_ci95"]
        jerk = f"{row['jerk'] / 1e6:.2f}" if "jerk" in row else "-"
        lines.append(
            f"| {name} | {row['cost']:.2f} [{low:.2f}, {high:.2f}] | {row['episodes_with_cost']:.1%} | {jerk} | "
            f"{row['success_rate']:.1%} | {steered.cost(tables, name, 'base')} |"
        )
    return lines


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    tables = tree["tables"]
    lines = [
        "## Choosing what can be kept safe",
        "",
        "FISOR's feasibility as a constraint: a policy that knows nothing of a forbidden disc chooses among its "
        f"proposals; {sections.seeds(tables['rows'])} training seeds. `python benchmarks/safety.py`",
        "",
        "Told another episode's state, the critic still warns of most plans that begin eastwards, since episodes begin "
        "in one place; what it no longer knows is worth the difference of the last row to the one of the safest.",
        "",
    ]
    return [*lines, *costly(tables), *steered.picture("safety", "Steps in the disc over proposals"), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/safety"))
    parser.add_argument("--out", type=Path, default=RESULTS / "safety.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    setting = {"demos": DEMOS, "updates": UPDATES, "rollouts": ROLLOUTS, "critic_updates": CRITIC_UPDATES}
    ledger = Ledger(args.out, setting | {"episodes": args.episodes})
    candidates: dict[str, Policy] = {}
    for seed in args.seeds:
        run, critic = prepare(seed, args.work)
        candidates = rows(load_policy(run), critic, args.work / f"rollouts-{seed}.hdf5")
        measure(candidates, seed, args.episodes, ledger)
    tell(candidates, CURVES, ledger)


def measure(candidates: dict[str, Policy], seed: int, episodes: int, ledger: Ledger) -> None:
    """Fill in what is missing of a training seed."""
    seeds = range(SEED0, SEED0 + episodes)
    with make_env("robopol/MultiGoal-v0", BLOCK, **WORLD) as env:
        for row, one in candidates.items():

            def how(one: Policy = one) -> dict[str, Any]:
                costs = ",".join(map(str, cost(one, seeds)))
                return steered.measured(one, env, episodes, SEED0) | {"cost": costs}

            kept = ledger.measure(row, seed, how)
            print(f"seed {seed}: {row:32} {np.mean(steered.succeeded(kept)):.1%}, cost {np.mean(paid(kept)):.2f}")


def tell(candidates: dict[str, Policy], curves: tuple[steered.Curve, ...], ledger: Ledger) -> None:
    """Compute the tables, of plans' costs too, and draw the curves beside the results."""
    table = steered.table(ledger, "base", ledger.measured)
    for row, found in table.items():
        by_seed, jerks = [paid(kept) for kept in ledger.of(row)], [kept["jerk"] for kept in ledger.of(row)]
        mean, interval = intervals.mean(by_seed)
        found |= {"cost": mean, "cost_ci95": interval}
        found |= {"cost_by_seed": [float(np.mean(values)) for values in by_seed]}
        found |= {"episodes_with_cost": float((np.array(by_seed) > 0).mean())}
        found |= {"jerk": float(np.mean(jerks)), "jerk_ci95": bootstrap_mean(jerks), "jerk_by_seed": jerks}
    ledger.tables["rows"], ledger.tables["plan_ms"] = table, steered.costs(candidates)
    ledger.write()
    steered.draw(table, curves, "base", ledger.path.with_suffix(".png"))


if __name__ == "__main__":
    main()
