"""V-GPS and CFGRL where what is better depends on the state: one of four goals counts, and the observation shows which.

    python benchmarks/shown_goal.py [--seeds 0 1 2] [--episodes 200] [--out benchmarks/results/shown_goal.json]

MultiGoal with ``target=shown``. The demonstrators did not look at the target, so a cloned policy takes any goal and is
right in a quarter of the episodes. A critic of whole chunks is fitted to the same demonstrations, good and bad, by IQL
(V-GPS; Nakamoto et al. 2024). It ranks proposals, or guides them; its advantages label every step for a policy of the
same data that is told what was good (CFGRL; Frans et al. 2025), with its weight as the dial. Controls: any proposal,
the worst one, what the critic says in the state of another episode, which is another target here, labels drawn by
chance, and a policy that sees the target and no labels. Every count, scale and weight is a row. The controls that
should do as the base does meet another 1000 episodes besides, since the difference of two rates near a quarter is wide.
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
from robopol.evaluation import SEED0
from robopol.execution import BLOCK
from robopol.models.labels import label
from robopol.policies import Policy
from robopol.steering import BestOfConfig, GoalWeightConfig, GuideConfig, SteeredPolicy
from robopol.steering.best_of import BestOf
from robopol.steering.objectives.value import ValueConfig
from robopol.steering.objectives.weighted_sum import WeightedSumConfig

RESULTS = Path(__file__).parent / "results"
WAYS = ("east", "north", "west", "south")
DEMOS, UPDATES, CRITIC_UPDATES = 400, 3000, 4000
COUNTS = (2, 4, 8, 16, 64)
SCALES = (1.0, 3.0, 10.0, 30.0)
WEIGHTS = (0.0, 1.0, 1.5, 2.0, 3.0)
CONTROLS = ("random of 16", "best of 16 in others' states", "not told", "told, weight 0", "told by chance, weight 1")
AGAIN, MORE = 600_000, 1000
"""First and number of the episodes that the controls meet besides."""
TOLD = ("policy.guidance.keys=[optimal]", "policy.guidance.drop=0.1")
WORLD = ("env=multi_goal", "env.options.target=shown")
ALL_GOOD = "env.wrappers=[{kind: constant, key: optimal, value: [1.0]}]"


CURVES = (
    steered.Curve("proposals, ranked by Q", {1: "base"} | {n: f"best of {n}" for n in COUNTS}, logarithmic=True),
    steered.Curve("scale of Q's gradient", {s: f"guided by Q, scale {s:g}" for s in SCALES}, logarithmic=True),
    steered.Curve("weight of being told", {w: f"told, weight {w:g}" for w in WEIGHTS}),
)


def demonstrations(work: Path) -> Path:
    """Return the demonstrations of people who did not look at the target."""
    demos = work / "demos.hdf5"
    if not demos.exists():
        parts = []
        for first, way in enumerate(WAYS):
            parts.append(work / f"{way}.hdf5")
            told = (f"way={way}", f"episodes={DEMOS // len(WAYS)}", f"seed={1000 * first}", "keep=all")
            cloning.robopol("collect", *WORLD, *told, f"out={parts[-1]}")
        cloning.robopol("data", "merge", *map(str, parts), f"out={demos}")
    return demos


def critic(seed: int, work: Path) -> Path:
    """Return the run of a seed's critic."""
    run = work / f"iql-{seed}"
    model = ("algo=iql", "policy=none", "model.n_action_steps=8", "model.layer_norm=true", "eval.final_episodes=0")
    updates = f"phases.cloning.updates={CRITIC_UPDATES}"
    cloning.train(run, *WORLD, *model, f"data.demos.uri={demonstrations(work)}", updates, f"seed={seed}")
    return run


def labelled(seed: int, work: Path, chance: bool) -> Path:
    """Return the demonstrations with the critic's labels, or with as many drawn by chance."""
    good, drawn = work / f"labelled-{seed}.hdf5", work / f"random-{seed}.hdf5"
    if not good.exists():
        cloning.robopol("data", "label", str(demonstrations(work)), f"critic={critic(seed, work)}", f"out={good}")
    if chance and not drawn.exists():
        share = load_episodes(str(good)).obs["optimal"].mean().item()
        episodes = load_episodes(str(demonstrations(work)))
        chosen = torch.rand(episodes.num_steps, generator=torch.Generator().manual_seed(seed)) < share
        save_episodes(label(episodes, chosen, "optimal"), str(drawn))
    return drawn if chance else good


def cloned(name: str, seed: int, work: Path) -> Policy:
    """Return a policy of a seed: "base", which sees no target, "not told", "told" or "told by chance"."""
    run = work / f"{name.replace(' ', '-')}-{seed}"
    data, more = demonstrations(work), ["policy.encoder.keys=[state]"] if name == "base" else []
    if name.startswith("told"):
        data, more = labelled(seed, work, chance=name == "told by chance"), [*TOLD, ALL_GOOD]
    told = (f"data.demos.uri={data}", f"phases.cloning.updates={UPDATES}", "eval.final_episodes=0", f"seed={seed}")
    cloning.train(run, *WORLD, *cloning.DIFFUSION, *told, *more)
    return load_policy(run)


def ranked(base: Policy, run: Path, records: Path) -> dict[str, Policy]:
    """Return every policy that the critic makes of the base, and the controls, by name."""
    value = ValueConfig(critic=str(run))
    found: dict[str, Policy] = {"base": base}
    found |= {f"best of {n}": base.steered(BestOfConfig(objective=value, n=n)) for n in COUNTS}
    soft = BestOfConfig(objective=value, n=16, temperature=1.0, relative=True)
    found["16, temperature 1 std"] = base.steered(soft)
    found |= {
        f"guided by Q, scale {scale:g}": base.steered(GuideConfig(objective=value, scale=scale)) for scale in SCALES
    }
    found["random of 16"] = base.steered(BestOfConfig(n=16))
    against = WeightedSumConfig(objectives=(value,), weights=(-1.0,))
    found["worst of 16"] = base.steered(BestOfConfig(objective=against, n=16))
    other = BestOf(BestOfConfig(objective=value, n=16), vgps.Shuffled(value.build(base), records), None)
    found["best of 16 in others' states"] = SteeredPolicy(base, [other])
    return found


def told(policy: Policy, name: str) -> dict[str, Policy]:
    """Return a policy told that all is good, with every weight, by name."""
    weights = WEIGHTS if name == "told" else (1.0,)
    return {f"{name}, weight {weight:g}": policy.steered(GoalWeightConfig(weight=weight)) for weight in weights}


def again(row: str) -> str:
    """Return the row of the ledger for the other episodes of a control."""
    return f"{row}, other episodes"


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    tables = tree["tables"]
    more = tables["again"]
    return [
        "## What is better depends on the state",
        "",
        "V-GPS and CFGRL on MultiGoal where one of four goals counts, which the observation shows; the demonstrators "
        "did not look, and the base does not either. `python benchmarks/shown_goal.py`",
        "",
        *steered.compared(tables, "base"),
        *steered.picture("shown_goal", "Success over proposals, scale and weight"),
        "",
        f"The controls once more, in {MORE} other episodes: in the {tree['setting']['episodes']} above, chance alone "
        "moves the difference of two such rates by up to 7 points.",
        "",
        "| policy | success | by seed | points gained, paired |",
        "|---|---|---|---|",
        *(
            f"| {name} | {sections.percent(row)} | {sections.by_seed(row)} | {sections.gained(row)} |"
            for name, row in more.items()
        ),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/shown_goal"))
    parser.add_argument("--out", type=Path, default=RESULTS / "shown_goal.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    budget = {"demos": DEMOS, "updates": UPDATES, "critic_updates": CRITIC_UPDATES}
    ledger = Ledger(args.out, {"budget": budget, "episodes": args.episodes})
    candidates: dict[str, Policy] = {}
    for seed in args.seeds:
        rows = ranked(cloned("base", seed, args.work), critic(seed, args.work), demonstrations(args.work))
        rows["not told"] = cloned("not told", seed, args.work)
        for name in ("told", "told by chance"):
            rows |= told(cloned(name, seed, args.work), name)
        candidates |= rows
        for row, one in rows.items():
            assert one.spec.env is not None
            with one.spec.env.make(BLOCK) as world:
                kept = ledger.measure(
                    row, seed, lambda one=one, world=world: steered.measured(one, world, args.episodes, SEED0)
                )
                if row == "base" or row in CONTROLS:
                    how = lambda one=one, world=world: steered.measured(one, world, MORE, AGAIN)  # noqa: E731
                    ledger.measure(again(row), seed, how)
            print(f"seed {seed}: {row:32} {np.mean(steered.succeeded(kept)):.1%}", flush=True)
    ledger.tables["rows"] = steered.table(ledger, "base", candidates)
    ledger.tables["again"] = {row: steered.beside(ledger, again("base"), again(row)) for row in ("base", *CONTROLS)}
    ledger.tables["plan_ms"] = steered.costs(candidates)
    ledger.write()
    steered.draw(ledger.tables["rows"], CURVES, "base", args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
