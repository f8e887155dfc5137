"""Does Push go the way that the user wants? A frozen policy that was told of no way, by everything that can say one.

    python benchmarks/steer_ways.py [--seeds 0 1 2] [--episodes 100] [--out benchmarks/results/steer_ways.json]

The policies are those of the quick start (``experiment=demo``), which take either way by chance. Either side of the
block is asked for over the same held-out episodes as the base, by

* a line of five points for the tool, past that side (ITPS); actions are changes of the tool's pose, so the objective
  integrates them;
* the place where the disc is wanted beside the block, or where it is not, as outcomes of a dynamics model that was
  fitted to the same demonstrations (DynaGuide);
* a box on the other side that the tool is to keep out of, a cost that the user states (PoCo);
* a formula of temporal logic: whenever the tool is beside the block, it is on that side of it; it chooses, guides, or a
  small network learned once to repair the plans that violate it (pSTL);
* a bound on where the disc may be, which a feasibility critic learned from the frozen policy's own episodes (FISOR);
  for one side.

Settings of the first were chosen on seed 0's policy in the episodes 200000 to 200024; of the others, every scale is a
row.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
from robopol.policies import Policy
from robopol.registry import lookup

RESULTS = Path(__file__).parent / "results"
WAYS = {"left": 1.0, "right": -1.0}
DISC = ("disc x", "disc y")
BESIDE = (0.53, 0.115)
"""Where the disc passes the block on the left, m."""
SCALES, PUSHES, RULES = (10.0, 30.0, 100.0), (0.0, 10.0, 100.0, 1000.0), (100.0, 300.0, 1000.0, 3000.0)
"""Of guidance by dynamics, by a cost, and by a formula."""
OBEYED = steered.Figure("obeyed", "obeyed_rate", "obeyed_ci95", "obeyed_by_seed", most=1.0)
CURVES = (
    *(
        steered.Curve(
            f"scale of DynaGuide, {word}",
            {scale: f"DynaGuide {word}, scale {scale:g}" for scale in SCALES},
            OBEYED,
            logarithmic=True,
        )
        for word in ("to the side", "from the other side")
    ),
    steered.Curve(
        "scale of PoCo", {scale: f"PoCo, scale {scale:g}" for scale in PUSHES if scale > 0}, OBEYED, logarithmic=True
    ),
    steered.Curve("scale of a formula", {s: f"formula, scale {s:g}" for s in RULES}, OBEYED, logarithmic=True),
)
DYNAMICS_UPDATES, FEASIBLE_UPDATES, ROLLOUTS, REPAIR_UPDATES = 3000, 4000, 400, 500

Steers = list[dict[str, Any]] | Path
"""What steers the base, or the folder of a policy that was made of it."""


def sketch(side: float) -> dict[str, Any]:
    """Return a line for the tool, m: past one side of a block at (0.53, 0), from behind the disc to before the goal."""
    line = [[0.26, 0.0], [0.37, 0.092 * side], [0.43, 0.115 * side], [0.52, 0.115 * side], [0.63, 0.0]]
    return {"kind": "sketch", "points": line, "pace": "free"}


def guide(side: float, scale: float, **more: Any) -> dict[str, Any]:
    return {"kind": "guide", "objective": sketch(side), "scale": scale, **more}


def released(side: float, scale: float) -> dict[str, Any]:
    return guide(side, scale, at="noisy", space="eps", interval=[0.1, 1.0])


def best_of(side: float, n: int) -> dict[str, Any]:
    return {"kind": "best_of", "objective": sketch(side), "n": n}


TRAVEL = {"kind": "inner_steps", "count": 4, "back": "time_travel"}
DRAWN = {
    "best of 16": lambda side: [best_of(side, 16)],
    "guide": lambda side: [guide(side, 30.0)],
    "guide, time travel": lambda side: [guide(side, 30.0), TRAVEL],
    "guide, time travel, best of 4": lambda side: [guide(side, 30.0), TRAVEL, best_of(side, 4)],
    "GD of ITPS": lambda side: [released(side, 3.0)],
    "SS of ITPS": lambda side: [released(side, 9.0), TRAVEL | {"back": "renoise"}],
}
"""Name -> the steerings by a line, for a side; ITPS's scales are per step, chosen as the others were."""


def beside(dynamics: Path, side: float, wanted: bool) -> dict[str, Any]:
    """Return the outcome that the disc is beside the block on a side, or that it is not on the other one."""
    x, y = BESIDE
    told = {"toward": [[x, y * side]]} if wanted else {"away": [[x, -y * side]]}
    return {"kind": "outcome", "dynamics": str(dynamics), "entries": DISC, "width": 0.3, **told}


def other_side(side: float) -> dict[str, Any]:
    """Return the cost of the tool on the other side of a block at (0.53, 0)."""
    low, high = ((0.40, -0.30), (0.62, 0.0)) if side > 0 else ((0.40, 0.0), (0.62, 0.30))
    return {"kind": "keep_away", "boxes": [{"low": low, "high": high}]}


def rule(side: float, temperature: float) -> dict[str, Any]:
    """Return the formula that the tool is on a side whenever it is beside a block at (0.53, 0)."""
    formula = f"always (x <= 0.40 or x >= 0.64 or {'y >= 0.07' if side > 0 else 'y <= -0.07'})"
    return {"kind": "stl", "formula": formula, "temperature": temperature}


def words(tree: dict[str, Any]) -> str:
    """Return a flat tree as it is written on the command line."""
    told = (f'{key}: "{value}"' if isinstance(value, str) else f"{key}: {value}" for key, value in tree.items())
    return f"{{{', '.join(told)}}}"


class Parts(NamedTuple):
    """A seed's runs.

    Attributes:
        base: The frozen policy.
        dynamics: Its dynamics.
        feasible: What knows how the right side is avoided.
        repaired: Way -> the policy whose plans are repaired to take it.
    """

    base: Path
    dynamics: Path
    feasible: Path
    repaired: dict[str, Path]


def steerings(parts: Parts) -> Iterator[tuple[str, str, Steers]]:
    """Yield the name of every steering, the way that it asks for, and what steers."""
    dynamics, feasible = parts.dynamics, parts.feasible
    for way, side in WAYS.items():
        for name, drawn in DRAWN.items():
            yield name, way, drawn(side)
        for wanted, word in ((True, "to the side"), (False, "from the other side")):
            outcome = beside(dynamics, side, wanted)
            yield f"DynaGuide {word}, best of 16", way, [{"kind": "best_of", "objective": outcome, "n": 16}]
            for scale in SCALES:
                push = {"kind": "guide", "objective": outcome, "scale": scale}
                yield f"DynaGuide {word}, scale {scale:g}", way, [push, TRAVEL]
        for scale in PUSHES:
            cost = {"kind": "guide", "objective": other_side(side), "scale": scale, "cap": 0.5}
            yield f"PoCo, scale {scale:g}", way, [cost]
        yield "formula, best of 16", way, [{"kind": "best_of", "objective": rule(side, 0.0), "n": 16}]
        for scale in RULES:
            push = {"kind": "guide", "objective": rule(side, 0.03), "scale": scale}
            yield f"formula, scale {scale:g}", way, [push, TRAVEL]
        yield "formula, repaired", way, parts.repaired[way]
    for n in (4, 16):
        safe = {"kind": "feasible", "critic": str(feasible)}
        yield f"FISOR, any feasible of {n}", "left", [{"kind": "best_of", "constraint": safe, "n": n}]


def prepare(seed: int, work: Path) -> Parts:
    """Return a seed's runs, finished."""
    demos, rollouts = work / "push.hdf5", work / f"rollouts-{seed}.hdf5"
    if not demos.exists():
        cloning.robopol("collect", "env=push", f"out={demos}", "episodes=200")
    base, dynamics, feasible = (work / f"{name}-{seed}" for name in ("push", "dynamics", "feasible"))
    cloning.train(base, "experiment=demo", f"data.demos.uri={demos}", f"seed={seed}")
    model = ("env=push", "policy=none", "model.n_action_steps=8", "eval.final_episodes=0", f"seed={seed}")
    updates = f"phases.cloning.updates={DYNAMICS_UPDATES}"
    cloning.train(dynamics, "algo=dynamics", *model, f"data.demos.uri={demos}", updates)
    if not rollouts.exists():
        more = (f"episodes={ROLLOUTS}", f"seed={10_000 * (seed + 1)}", "keep=all", f"out={rollouts}")
        cloning.robopol("collect", f"checkpoint={base}", "env=push", *more)
    with make_env("robopol/Push-v0") as env:
        entry = env.spec.state_names.index("disc y [m]")
    bound = f"algo.violations=[{{kind: bound, entry: {entry}, low: {-BESIDE[1] / 2}}}]"
    updates = f"phases.cloning.updates={FEASIBLE_UPDATES}"
    cloning.train(feasible, "algo=fisor", bound, *model, f"data.demos.uri={rollouts}", updates)
    repaired = {}
    for way, side in WAYS.items():
        exact, smooth = (words(rule(side, temperature)) for temperature in (0.0, 0.01))
        repaired[way] = work / f"repaired-{way}-{seed}"
        told = (f"algo.objective={exact}", f"algo.smooth={smooth}", "batch_size=32", "eval.final_episodes=0")
        updates = (
            "algo.proposals=8",
            "algo.lr=1e-3",
            "algo.warmup=50",
            f"phases.cloning.updates={REPAIR_UPDATES}",
            f"seed={seed}",
        )
        start = (f"checkpoint={base}", "algo=repair", "env=push", f"data.demos.uri={demos}")
        cloning.train(repaired[way], *start, *told, *updates)
    return Parts(base, dynamics, feasible, repaired)


def built(policy: Policy, trees: Steers) -> Policy:
    """Return a policy, steered if there is something to steer it."""
    if isinstance(trees, Path):
        return load_policy(trees)
    return policy.steered(*(parse(lookup("steering", tree["kind"]), tree) for tree in trees)) if trees else policy


def measure(seed: int, work: Path, episodes: int, ledger: Ledger) -> dict[str, Policy]:
    """Fill in what is missing of a training seed; return the base, and the policies that are asked to go left."""
    parts = prepare(seed, work)
    policy = load_policy(parts.base)
    assert policy.spec.env is not None
    rows: list[tuple[str, str, Steers]] = [("base", "", []), *steerings(parts)]
    with policy.spec.env.make(50) as env:
        for name, way, trees in rows:
            how = lambda t=trees: steered.measured(built(policy, t), env, episodes, SEED0)  # noqa: E731
            kept = ledger.measure(named(name, way), seed, how)
            taken = {side: kept["way"].split(",").count(side) for side in WAYS}
            print(f"seed {seed}: {named(name, way):44} {np.mean(steered.succeeded(kept)):.0%} {taken}", flush=True)
    return {name: built(policy, trees) for name, way, trees in rows if way != "right"}


def named(name: str, way: str) -> str:
    """Return the row of the ledger in which a steering asks for a way."""
    return f"{name}: {way}" if way else name


def together(ledger: Ledger, name: str, ways: list[str]) -> dict[str, Any]:
    """Put the training seeds of a steering together; successes are compared with the base's in the same episodes."""
    rows = {way: named(name, "" if name == "base" else way) for way in ways}
    success, obeyed, base, rates = [], [], [], []
    for seed in ledger.seeds(rows[ways[0]]):
        (before,) = ledger.of("base", [seed])
        for way in ways:
            (kept,) = ledger.of(rows[way], [seed])
            here = [taken == way for taken in kept["way"].split(",")]
            success, obeyed, base = success + steered.succeeded(kept), obeyed + here, base + steered.succeeded(before)
            rates.append(sum(here) / len(here))
    every = [kept for row in rows.values() for kept in ledger.of(row)]
    times = len(ways) if name == "base" else 1  # the base's are the same whatever is asked
    count = len(success)
    distinct = count // times // len(ledger.seeds(rows[ways[0]]))
    return {
        "episodes": count // times,
        "ways": ways,
        "success_rate": sum(success) / count,
        "success_ci95": intervals.share([sum(success) / count], distinct)[1],
        "obeyed_rate": sum(obeyed) / count,
        "obeyed_ci95": intervals.share([sum(obeyed) / count], distinct)[1],
        "both_rate": sum(s and o for s, o in zip(success, obeyed, strict=True)) / count,
        "lost": sum(b and not s for s, b in zip(success, base, strict=True)),
        "won": sum(s and not b for s, b in zip(success, base, strict=True)),
        "obeyed_by_seed": [rates[k : k + len(ways)] for k in range(0, len(rates), len(ways))],
        "length_mean": float(np.mean([kept["length_mean"] for kept in every])),
    }


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    tables = tree["tables"]
    lines = [
        "## The way that the user wants",
        "",
        "Push has two ways around a block; frozen diffusion policies that were told of none are steered by a line that "
        "is drawn past one side; in rows that are named so by where a dynamics model says that the disc gets to "
        "(DynaGuide), by a box that the tool is to keep out of (PoCo), by a formula of temporal logic, which in one "
        "row is what a small network learned to repair plans for (pSTL), by what keeps the disc off one side for good "
        "(FISOR). Either way is asked for in 100 held-out episodes a training seed. The repair fails: a rule about the "
        "tool does not say how the disc is pushed, and an edit of a plan does not make another way of it. "
        "Obeyed: the disc passed on the side that was asked for. Lost and won: episodes that failed or succeeded "
        "unlike the base's. "
        "`python benchmarks/steer_ways.py`",
        "",
        "| steering | obeyed | by seed, left and right | success | lost / won | steps | a plan (to the base's) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in tables["rows"].items():
        obeyed = sections.share(row["obeyed_rate"], row["obeyed_ci95"])
        seeds = ", ".join("/".join(f"{rate:.0%}" for rate in rates) for rates in row["obeyed_by_seed"])
        lines.append(
            f"| {name} | {obeyed} | {seeds} | {sections.percent(row)} | "
            f"{row['lost']} / {row['won']} | {row['length_mean']:.1f} | {steered.cost(tables, name, 'base')} |"
        )
    return [*lines, *steered.picture("steer_ways", "Obeyed over scales"), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path("runs/steer_ways"))
    parser.add_argument("--out", type=Path, default=RESULTS / "steer_ways.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    budget = {"dynamics": DYNAMICS_UPDATES, "feasible": FEASIBLE_UPDATES, "rollouts": ROLLOUTS}
    budget |= {"repair": REPAIR_UPDATES}
    ledger = Ledger(args.out, {"budget": budget, "episodes": args.episodes})
    candidates: dict[str, Policy] = {}
    for seed in args.seeds:
        candidates = measure(seed, args.work, args.episodes, ledger)
    asked: dict[str, list[str]] = {"base": list(WAYS)}
    for row in ledger.measured:
        name, _, way = row.rpartition(": ")
        if name:
            asked.setdefault(name, []).append(way)
    ledger.tables["rows"] = {name: together(ledger, name, ways) for name, ways in asked.items()}
    ledger.tables["plan_ms"] = steered.costs(candidates)
    ledger.write()
    steered.draw(ledger.tables["rows"], CURVES, "base", args.out.with_suffix(".png"))
    for name, row in ledger.tables["rows"].items():
        print(f"{name:44} obeyed {row['obeyed_rate']:.1%} success {row['success_rate']:.1%} lost {row['lost']}")


if __name__ == "__main__":
    main()
