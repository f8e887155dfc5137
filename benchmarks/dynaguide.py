"""DynaGuide (Du & Song 2025): a frozen policy that knows four goals is guided to one, or away from one, by dynamics.

    python benchmarks/dynaguide.py [--seeds 0 1 2] [--episodes 100] [--out benchmarks/results/dynaguide.json]

MultiGoal: the policy is told of no goal and takes each about as often. A dynamics model, fitted to the same
demonstrations, predicts where the point is after the actions of a plan; the objective is nearness to the goal that the
user wants. A second policy saw one of the goals in few of its demonstrations only. The first is also asked without a
model, by what a user can state: the goal as a point (ITPS), and a formula of temporal logic. Control: dynamics that
were not trained. Scales were chosen on seed 0 in the episodes 200000 to 200049; the table is of others, the same for
every row.
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
from ledger import Ledger

from robopol import load_policy, make_env
from robopol.config import parse
from robopol.evaluation import SEED0
from robopol.execution import BLOCK
from robopol.policies import Policy
from robopol.registry import lookup
from robopol.steering.steering import SteeringConfig

RESULTS = Path(__file__).parent / "results"
GOALS = {"east": (0.8, 0.0), "north": (0.0, 0.8), "west": (-0.8, 0.0), "south": (0.0, -0.8)}
RARE, RARE_SHARE = "south", 0.02
DEMOS, UPDATES = 400, 3000
SCALE, SCALES = 60.0, (3.0, 10.0, 30.0, 100.0)
"""Of the guide, and which others are tried towards the east."""
TRAVEL = {"kind": "inner_steps", "count": 4, "back": "time_travel"}


def outcome(dynamics: Path, toward: list[str], away: list[str]) -> dict[str, Any]:
    points = {"toward": [GOALS[name] for name in toward], "away": [GOALS[name] for name in away]}
    return {"kind": "outcome", "dynamics": str(dynamics), "width": 0.3, **points}


def stated(goal: str, untrained: Path) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Return what needs no model, and the control: row -> the goal that it is about, and what steers."""
    point = {"kind": "point", "point": list(GOALS[goal])}
    x, y = GOALS[goal]
    formula = {"kind": "stl", "formula": f"eventually distance({x}, {y}) <= 0.1"}
    pushes = {"a point": (point, 5.0), "a formula": (formula | {"temperature": 0.05}, 300.0)}
    choices = {"a point": point, "a formula": formula}
    rows = {
        f"{name}, best of 10, {goal}": (goal, [{"kind": "best_of", "objective": objective, "n": 10}])
        for name, objective in choices.items()
    }
    rows |= {
        f"{name}, guided, {goal}": (goal, [{"kind": "guide", "objective": objective, "scale": scale}, TRAVEL])
        for name, (objective, scale) in pushes.items()
    }
    chance = {"kind": "guide", "objective": outcome(untrained, [goal], []), "scale": SCALE}
    return rows | {f"control: dynamics not trained, {goal}": (goal, [chance, TRAVEL])}


def steerings(dynamics: Path) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Return row -> the goal that it is about, and what steers."""
    rows: dict[str, tuple[str, list[dict[str, Any]]]] = {}
    for goal in GOALS:
        to = outcome(dynamics, [goal], [])
        guide = {"kind": "guide", "objective": to, "scale": SCALE}
        rows[f"best of 10 to {goal}"] = (goal, [{"kind": "best_of", "objective": to, "n": 10}])
        rows[f"guided to {goal}"] = (goal, [guide, TRAVEL])
        noisy = guide | {"at": "noisy", "scale": 10.0, "interval": [0.0, 0.9]}
        rows[f"as released to {goal}"] = (goal, [noisy, TRAVEL | {"back": "repeat"}])
        if goal == "east":
            rows |= {f"guided to east, scale {scale:g}": (goal, [guide | {"scale": scale}, TRAVEL]) for scale in SCALES}
    others = [goal for goal in GOALS if goal != "east"]
    rows["guided away from east"] = (
        "east",
        [{"kind": "guide", "objective": outcome(dynamics, others, ["east"]), "scale": SCALE}, TRAVEL],
    )
    return rows


def prepare(seed: int, work: Path, rare: bool) -> tuple[Path, Path, Path]:
    """Return the runs of a seed's policy, of its dynamics, and of dynamics after a single update."""
    name = "rare" if rare else "even"
    demos = work / f"{name}.hdf5"
    if not demos.exists():
        counts = {goal: DEMOS // len(GOALS) for goal in GOALS}
        if rare:
            counts[RARE] = round(DEMOS * RARE_SHARE)
        parts = []
        for first, (goal, count) in enumerate(counts.items()):
            parts.append(work / f"{name}-{goal}.hdf5")
            words = (f"way={goal}", f"episodes={count}", f"seed={1000 * first}", f"out={parts[-1]}")
            cloning.robopol("collect", "env=multi_goal", *words)
        cloning.robopol("data", "merge", *map(str, parts), f"out={demos}")
    policy, dynamics = work / f"{name}-policy-{seed}", work / f"{name}-dynamics-{seed}"
    words = ("env=multi_goal", f"data.demos.uri={demos}", f"seed={seed}", f"phases.cloning.updates={UPDATES}")
    cloning.train(policy, *cloning.DIFFUSION, *words)
    model = ("algo=dynamics", "policy=none", "model.n_action_steps=8", "eval.final_episodes=0")
    cloning.train(dynamics, *model, *words)
    untrained = work / f"{name}-untrained-{seed}"
    cloning.train(untrained, *model, *words, "phases.cloning.updates=1")
    return policy, dynamics, untrained


TAKEN = steered.Figure("wanted goal taken", "taken_rate", "taken_ci95", "taken_by_seed", most=1.0)
EAST = {SCALE: "guided to east"} | {scale: f"guided to east, scale {scale:g}" for scale in SCALES}
CURVES = (steered.Curve("scale of the guide", dict(sorted(EAST.items())), TAKEN, logarithmic=True),)


def taken(ledger: Ledger, row: str, goal: str) -> dict[str, Any]:
    """Return how often a goal was taken, whether the episode succeeded or not."""
    by_seed = [[way == goal for way in kept["way"].split(",")] for kept in ledger.of(row)]
    found = intervals.success(by_seed)
    return {f"taken_{key}": found[f"success_{key}"] for key in ("rate", "ci95")} | {"taken_by_seed": found["by_seed"]}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    tables, budget = tree["tables"], tree["setting"]["budget"]
    lines = [
        "## Guided by dynamics",
        "",
        "DynaGuide on MultiGoal, and beside it a point and a formula that a user states: how often the wanted goal is "
        "taken by a policy that was told of none, and by one that "
        f"saw '{budget['rare']}' in {budget['rare_share']:.0%} of its demonstrations; "
        f"{sections.seeds(tables['even'])} training seeds. `python benchmarks/dynaguide.py`",
        "",
        "| demonstrations | steering | goal | taken | success | a plan (to the base's) |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("even", "rare"):
        for row, found in tables[name].items():
            shares = ", ".join(f"{way} {count / found['episodes']:.0%}" for way, count in found["ways"].items())
            told = sections.share(found["taken_rate"], found["taken_ci95"]) if found["goal"] else shares
            cells = (name, row, found["goal"] or "-", told, f"{found['success_rate']:.1%}")
            lines.append(f"| {' | '.join(cells)} | {steered.cost(tables, f'{name}: {row}', f'{name}: base')} |")
    return [*lines, *steered.picture("dynaguide", "How often the east is reached over the scale of the guide"), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path("runs/dynaguide"))
    parser.add_argument("--out", type=Path, default=RESULTS / "dynaguide.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    budget = {"demos": DEMOS, "updates": UPDATES, "rare": RARE, "rare_share": RARE_SHARE}
    ledger = Ledger(args.out, {"budget": budget, "episodes": args.episodes})
    candidates: dict[str, Policy] = {}
    for name in ("even", "rare"):
        about: dict[str, str | None] = {"base": None}
        for seed in args.seeds:
            run, dynamics, untrained = prepare(seed, args.work, name == "rare")
            policy = load_policy(run)
            with make_env("robopol/MultiGoal-v0", BLOCK) as env:
                here = {"base": policy}
                asked = steerings(dynamics)
                for goal in GOALS if name == "even" else ():
                    asked |= stated(goal, untrained)
                for row, (goal, trees) in asked.items():
                    if name == "even" or goal == RARE:
                        about[row] = goal
                        chosen: list[SteeringConfig] = [parse(lookup("steering", t["kind"]), t) for t in trees]
                        here[row] = policy.steered(*chosen)
                candidates |= {f"{name}: {row}": one for row, one in here.items()}
                for row, one in here.items():
                    how = lambda one=one: steered.measured(one, env, args.episodes, SEED0)  # noqa: E731
                    kept = ledger.measure(f"{name}: {row}", seed, how)
                    print(f"{name} {seed}: {row:24} {np.mean(steered.succeeded(kept)):.0%}", flush=True)
        rows = steered.table(ledger, f"{name}: base", [f"{name}: {row}" for row in about])
        ledger.tables[name] = {
            row: rows[f"{name}: {row}"] | {"goal": goal} | (taken(ledger, f"{name}: {row}", goal) if goal else {})
            for row, goal in about.items()
        }
    ledger.tables["plan_ms"] = steered.costs(candidates)
    ledger.write()
    shown = ledger.tables["even"] | {"base": taken(ledger, "even: base", "east")}
    steered.draw(shown, CURVES, "base", args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
