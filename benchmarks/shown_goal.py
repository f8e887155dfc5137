"""V-GPS and CFGRL where what is better depends on the state alone: one of several ways counts, and it is shown which.

    python benchmarks/shown_goal.py [--tasks multi_goal push] [--seeds 0 1 2] [--out benchmarks/results/shown_goal.json]

MultiGoal with ``target=shown``, and Push where one side is asked for (the wrapper ``asked_way``). The demonstrators did
not look, so a cloned policy takes any way and is right in a quarter, or in half, of the episodes. A critic of whole
chunks is fitted to the same demonstrations, good and bad, by IQL (V-GPS; Nakamoto et al. 2024). It ranks proposals, or
guides them; its advantages label every step for a policy of the same data that is told what was good (CFGRL; Frans et
al. 2025), with its weight as the dial. Controls: any proposal, the worst one, what the critic says in the state of
another episode, where another way may be asked for, labels drawn by chance, and a policy that sees what is asked for
and no labels. Every count, scale and weight is a row. On MultiGoal the controls that should do as the base does meet
further episodes besides, since the difference of two rates near a quarter is wide.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import cloning
import numpy as np
import sections
import steered
import torch
import vgps
from ledger import Ledger

from robopol import load_episodes, load_policy
from robopol.data import save_episodes
from robopol.envs import VectorEnv
from robopol.evaluation import SEED0
from robopol.execution import BLOCK
from robopol.models.labels import label
from robopol.policies import Policy
from robopol.steering import BestOfConfig, GoalWeightConfig, GuideConfig, SteeredPolicy
from robopol.steering.best_of import BestOf
from robopol.steering.objectives.value import ValueConfig
from robopol.steering.objectives.weighted_sum import WeightedSumConfig

RESULTS = Path(__file__).parent / "results"


class Task(NamedTuple):
    """A world in which one of several ways counts.

    Attributes:
        world: Words that name it.
        ways: How it can be done.
        wrappers: What the worlds are wrapped in.
        demos: Demonstrations of all ways together.
        episodes: Held-out episodes for each training seed.
        more: Others that the controls meet besides; 0 if none.
    """

    world: tuple[str, ...]
    ways: tuple[str, ...]
    wrappers: tuple[str, ...]
    demos: int
    episodes: int
    more: int


TASKS = {
    "multi_goal": Task(
        ("env=multi_goal", "env.options.target=shown"), ("east", "north", "west", "south"), (), 400, 200, 1000
    ),
    "push": Task(("env=push",), ("left", "right"), ("{kind: asked_way}",), 200, 100, 0),
}
UPDATES, CRITIC_UPDATES = 3000, 4000
COUNTS = (2, 4, 8, 16, 64)
SCALES = (1.0, 3.0, 10.0, 30.0)
WEIGHTS = (0.0, 1.0, 1.5, 2.0, 3.0)
CONTROLS = ("random of 16", "best of 16 in others' states", "not told", "told, weight 0", "told by chance, weight 1")
AGAIN = 600_000
"""First of the episodes that the controls meet besides."""
TOLD = ("policy.guidance.keys=[optimal]", "policy.guidance.drop=0.1")
ALL_GOOD = "{kind: constant, key: optimal, value: [1.0]}"


CURVES = (
    steered.Curve("proposals, ranked by Q", {1: "base"} | {n: f"best of {n}" for n in COUNTS}, logarithmic=True),
    steered.Curve("scale of Q's gradient", {s: f"guided by Q, scale {s:g}" for s in SCALES}, logarithmic=True),
    steered.Curve("weight of being told", {w: f"told, weight {w:g}" for w in WEIGHTS}),
)


def world(task: str, *wrappers: str) -> tuple[str, ...]:
    """Return the words that name a task's world, with wrappers besides."""
    told = TASKS[task]
    return (*told.world, f"env.wrappers=[{', '.join((*told.wrappers, *wrappers))}]")


def demonstrations(task: str, work: Path) -> Path:
    """Return the demonstrations of people who did not look at the target."""
    demos, ways = work / "demos.hdf5", TASKS[task].ways
    if not demos.exists():
        parts = []
        for first, way in enumerate(ways):
            parts.append(work / f"{way}.hdf5")
            told = (f"way={way}", f"episodes={TASKS[task].demos // len(ways)}", f"seed={1000 * first}", "keep=all")
            cloning.robopol("collect", *world(task), *told, f"out={parts[-1]}")
        cloning.robopol("data", "merge", *map(str, parts), f"out={demos}")
    return demos


def critic(task: str, seed: int, work: Path) -> Path:
    """Return the run of a seed's critic."""
    run = work / f"iql-{seed}"
    model = ("algo=iql", "policy=none", "model.n_action_steps=8", "model.layer_norm=true", "eval.final_episodes=0")
    updates = f"phases.cloning.updates={CRITIC_UPDATES}"
    cloning.train(run, *world(task), *model, f"data.demos.uri={demonstrations(task, work)}", updates, f"seed={seed}")
    return run


def labelled(task: str, seed: int, work: Path, chance: bool) -> Path:
    """Return the demonstrations with the critic's labels, or with as many drawn by chance."""
    good, drawn = work / f"labelled-{seed}.hdf5", work / f"random-{seed}.hdf5"
    if not good.exists():
        cloning.robopol(
            "data", "label", str(demonstrations(task, work)), f"critic={critic(task, seed, work)}", f"out={good}"
        )
    if chance and not drawn.exists():
        share = load_episodes(str(good)).obs["optimal"].mean().item()
        episodes = load_episodes(str(demonstrations(task, work)))
        chosen = torch.rand(episodes.num_steps, generator=torch.Generator().manual_seed(seed)) < share
        save_episodes(label(episodes, chosen, "optimal"), str(drawn))
    return drawn if chance else good


def cloned(task: str, name: str, seed: int, work: Path) -> Policy:
    """Return a policy of a seed: "base", which does not see what counts, "not told", "told" or "told by chance"."""
    run = work / f"{name.replace(' ', '-')}-{seed}"
    data, more = demonstrations(task, work), ["policy.encoder.keys=[state]"] if name == "base" else []
    words = world(task)
    if name.startswith("told"):
        data, more, words = labelled(task, seed, work, name == "told by chance"), [*TOLD], world(task, ALL_GOOD)
    told = (f"data.demos.uri={data}", f"phases.cloning.updates={UPDATES}", "eval.final_episodes=0", f"seed={seed}")
    cloning.train(run, *words, *cloning.DIFFUSION, *told, *more)
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


def named(task: str, row: str, again: bool = False) -> str:
    """Return a row of the ledger; ``again``: in the other episodes of a control."""
    return f"{task}, {row}{', other episodes' if again else ''}"


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## What is better depends on the state",
        "",
        "V-GPS and CFGRL on MultiGoal where one of four goals counts, and on Push where one side does, which the "
        "observation shows; the demonstrators did not look, and the base does not either. "
        "`python benchmarks/shown_goal.py`",
        "",
        "A critic that is told another episode's state is worth nothing. Weights above 1, the point of CFGRL where it "
        "was published, add a little to being told; how far that goes depends on the world. Nor do ever more proposals "
        "help.",
        "",
    ]
    for task, tables in tree["tables"].items():
        lines += [
            f"### {task}",
            "",
            *steered.compared(tables, "base"),
            *steered.picture(f"shown_goal-{task}", "Success over proposals, scale and weight"),
            "",
        ]
        if "again" not in tables:
            continue
        lines += [
            f"The controls once more, in {TASKS[task].more} other episodes; in {TASKS[task].episodes}, chance alone "
            "moves the difference of two such rates by several points:",
            "",
            "| policy | success | by seed | points gained, paired |",
            "|---|---|---|---|",
            *(
                f"| {name} | {sections.percent(row)} | {sections.by_seed(row)} | {sections.gained(row)} |"
                for name, row in tables["again"].items()
            ),
            "",
        ]
    return lines


def measure(task: str, seed: int, work: Path, ledger: Ledger) -> dict[str, Policy]:
    """Fill in what is missing of a training seed; return every policy, by name."""
    rows = ranked(cloned(task, "base", seed, work), critic(task, seed, work), demonstrations(task, work))
    rows["not told"] = cloned(task, "not told", seed, work)
    for name in ("told", "told by chance"):
        rows |= told(cloned(task, name, seed, work), name)
    for row, one in rows.items():
        assert one.spec.env is not None
        with one.spec.env.make(BLOCK) as env:

            def how(count: int, first: int, one: Policy = one, env: VectorEnv = env) -> dict[str, Any]:
                return steered.measured(one, env, count, first)

            kept = ledger.measure(named(task, row), seed, lambda: how(TASKS[task].episodes, SEED0))
            if TASKS[task].more and (row == "base" or row in CONTROLS):
                ledger.measure(named(task, row, again=True), seed, lambda: how(TASKS[task].more, AGAIN))
        print(f"{task}, seed {seed}: {row:32} {np.mean(steered.succeeded(kept)):.1%}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/shown_goal"))
    parser.add_argument("--out", type=Path, default=RESULTS / "shown_goal.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tasks = {name: task._asdict() for name, task in TASKS.items()}
    ledger = Ledger(args.out, {"tasks": tasks, "updates": UPDATES, "critic_updates": CRITIC_UPDATES})
    for task in args.tasks:
        work = args.work / task
        work.mkdir(parents=True, exist_ok=True)
        for seed in args.seeds:
            rows = measure(task, seed, work, ledger)
        beside = {row: steered.beside(ledger, named(task, "base"), named(task, row)) for row in rows}
        ledger.tables[task] = {"rows": beside, "plan_ms": steered.costs(rows)}
        if TASKS[task].more:
            base = named(task, "base", again=True)
            again = {row: steered.beside(ledger, base, named(task, row, again=True)) for row in ("base", *CONTROLS)}
            ledger.tables[task]["again"] = again
        ledger.write()
        steered.draw(beside, CURVES, "base", args.out.with_name(f"{args.out.stem}-{task}.png"))


if __name__ == "__main__":
    main()
