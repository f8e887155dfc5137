"""An arm that is to keep off two columns: plans repaired, guided and chosen (pSTL-Diffusion on the arm suite).

    python benchmarks/repair_reach.py [--seeds 0 1 2] [--episodes 200] [--out benchmarks/results/repair_reach.json]

Reach, whose demonstrations know of no columns. A formula of temporal logic says that the tool is to stay out of both;
it chooses among proposals, guides, or an editor learned to repair the plans that violate it, at several weights of
staying near to what was proposed. Kept: episodes in which the tool never was in a column. Episodes whose target lies
beside a column are left out, since they cannot be done. Controls: an editor after one update, and one that learned
another rule.
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

from robopol import load_policy
from robopol.config import parse
from robopol.envs import VectorEnv
from robopol.evaluation import SEED0, Recorder, rollout
from robopol.execution import RecedingHorizon
from robopol.policies import Policy
from robopol.registry import lookup

RESULTS = Path(__file__).parent / "results"
COLUMNS, RADIUS, ROOM = ((0.54, 0.07), (0.54, -0.07)), 0.04, 0.01
"""Where the columns are; how far from a centre the tool is out of one; what the rule asks for besides; m."""
BESIDE = 0.05
"""How far from a column a target has to be, m: the room that the rule asks for, the repair's margin, the tolerance."""
ELSEWHERE = ((0.37, 0.10), (0.37, -0.10))
DEMOS, UPDATES, REPAIR_UPDATES = 100, 1500, 500
SCALES, NEAR = (300.0, 1000.0, 3000.0, 10000.0), (0.0, 0.003, 0.03)


def rule(columns: tuple[tuple[float, float], ...]) -> str:
    """Return the formula that the tool is always out of some columns."""
    return " and ".join(f"always distance({x}, {y}) >= {RADIUS + ROOM}" for x, y in columns)


def repaired(base: Path, name: str, seed: int, work: Path, *more: str, where: Any = COLUMNS) -> Path:
    """Return the run of a policy whose plans are repaired."""
    run = work / f"{name}-{seed}"
    exact = f'{{kind: stl, formula: "{rule(where)}"}}'
    smooth = f'{{kind: stl, formula: "{rule(where)}", temperature: 0.005}}'
    told = ("batch_size=64", "algo.proposals=8", "algo.lr=1e-3", "algo.warmup=50", "eval.final_episodes=0")
    start = (f"checkpoint={base}", "algo=repair", "env=reach", f"data.demos.uri={work / 'reach.hdf5'}")
    updates = f"phases.cloning.updates={REPAIR_UPDATES}"
    cloning.train(
        run, *start, f"algo.objective={exact}", f"algo.smooth={smooth}", *told, updates, f"seed={seed}", *more
    )
    return run


def candidates(seed: int, work: Path) -> dict[str, Policy]:
    """Return every policy of a seed, by name."""
    demos, run = work / "reach.hdf5", work / f"reach-{seed}"
    if not demos.exists():
        cloning.robopol("collect", "env=reach", f"out={demos}", f"episodes={DEMOS}")
    updates = f"phases.cloning.updates={UPDATES}"
    cloning.train(run, "env=reach", *cloning.DIFFUSION, f"data.demos.uri={demos}", updates, f"seed={seed}")
    base = load_policy(run)

    def with_(*trees: dict[str, Any]) -> Policy:
        return base.steered(*(parse(lookup("steering", tree["kind"]), tree) for tree in trees))

    exact = {"kind": "stl", "formula": rule(COLUMNS)}
    found = {"base": base, "best of 16": with_({"kind": "best_of", "objective": exact, "n": 16})}
    for scale in SCALES:
        push = {"kind": "guide", "objective": exact | {"temperature": 0.005}, "scale": scale, "cap": 0.5}
        found[f"guided, scale {scale:g}"] = with_(push)
    for near in NEAR:
        found[f"repaired, near {near:g}"] = load_policy(
            repaired(run, f"near-{near:g}", seed, work, f"algo.near={near}")
        )
    untrained = repaired(run, "untrained", seed, work, "phases.cloning.updates=1")
    found["control: after one update"] = load_policy(untrained)
    other = repaired(run, "elsewhere", seed, work, f"algo.near={NEAR[1]}", where=ELSEWHERE)
    found["control: columns elsewhere"] = load_policy(other)
    return found


def measured(policy: Policy, env: VectorEnv, episodes: int) -> dict[str, Any]:
    """Return what a ledger keeps: of each episode whether it succeeded, and whether the tool stayed out."""
    recorder = Recorder(env, "policy")
    rollout(RecedingHorizon(policy), env, range(SEED0, SEED0 + episodes), recorder=recorder)
    met = recorder.episodes()
    tool = met.obs["state"][:, [env.spec.state_names.index(f"tool {axis} [m]") for axis in "xy"]]
    inside = (tool[:, None] - torch.tensor(COLUMNS)).norm(dim=-1).amin(-1) < RADIUS
    spans = zip(met.starts.tolist(), met.lengths.tolist(), strict=True)
    kept = [not bool(inside[start : start + length].any()) for start, length in spans]
    return {"success": text(met.success.tolist()), "kept": text(kept)}


def free(env: VectorEnv, episodes: int) -> list[bool]:
    """Return which episodes have a target that can be reached from out of the columns."""
    found = []
    entries = [env.spec.state_names.index(f"target {axis} [m]") for axis in "xy"]
    for seed in range(SEED0, SEED0 + episodes):
        target = env.reset([0], [seed])["state"][0, entries]
        found.append(bool((target - torch.tensor(COLUMNS)).norm(dim=-1).amin() > RADIUS + BESIDE))
    return found


def text(values: list[bool]) -> str:
    """Return a 0 or 1 for each episode."""
    return "".join(str(int(value)) for value in values)


def judged(ledger: Ledger, row: str, counts: list[bool]) -> dict[str, Any]:
    """Put the seeds of a row together, and its differences to the base in the same episodes; of those that count."""

    def digits(name: str, key: str) -> list[list[float]]:
        every = [kept[key] for kept in ledger.of(name, ledger.seeds(row))]
        return [[float(digit) for digit, used in zip(one, counts, strict=True) if used] for one in every]

    kept = intervals.success(digits(row, "kept"))
    gained = intervals.gain(digits("base", "kept"), digits(row, "kept"))
    told = {f"kept_{key}": kept[f"success_{key}"] for key in ("rate", "ci95")} | {"kept_by_seed": kept["by_seed"]}
    return intervals.success(digits(row, "success")) | told | gained


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    tables = tree["tables"]
    lines = [
        "## An arm that keeps off two columns",
        "",
        "Reach, with two columns that the demonstrations know nothing of and a formula that the tool is to stay out of "
        f"both; {tables['episodes']} held-out episodes, {sections.seeds(tables['rows'])} training seeds. "
        "Kept: the tool never was in a column. Controls: an editor after one update, and one that learned to keep off "
        "columns that are elsewhere. `python benchmarks/repair_reach.py`",
        "",
        "| plans | kept | by seed | points gained, paired | success | a plan (to the base's) |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in tables["rows"].items():
        seeds = " ".join(f"{rate:.0%}" for rate in row["kept_by_seed"])
        kept = sections.share(row["kept_rate"], row["kept_ci95"])
        cells = (name, kept, seeds, sections.gained(row), sections.percent(row), steered.cost(tables, name, "base"))
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/repair_reach"))
    parser.add_argument("--out", type=Path, default=RESULTS / "repair_reach.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    budget = {"demos": DEMOS, "updates": [UPDATES, REPAIR_UPDATES], "columns": [*COLUMNS, RADIUS, ROOM]}
    ledger = Ledger(args.out, budget | {"episodes": args.episodes})
    policies: dict[str, Policy] = {}
    counts: list[bool] = []
    for seed in args.seeds:
        policies = candidates(seed, args.work)
        assert policies["base"].spec.env is not None
        with policies["base"].spec.env.make(50) as env:
            for name, policy in policies.items():
                found = ledger.measure(name, seed, lambda p=policy, e=env: measured(p, e, args.episodes))
                kept, success = (np.mean([int(digit) for digit in found[key]]) for key in ("kept", "success"))
                print(f"seed {seed}: {name:30} kept {kept:.1%}, success {success:.1%}", flush=True)
            counts = free(env, args.episodes)
    ledger.tables["episodes"] = sum(counts)
    ledger.tables["rows"] = {name: judged(ledger, name, counts) for name in policies}
    ledger.tables["plan_ms"] = steered.costs(policies)
    ledger.write()


if __name__ == "__main__":
    main()
