"""Does Push go the way that the user draws? A frozen policy that was told of no way, steered by a line.

    python benchmarks/steer_ways.py [--seeds 0 1 2] [--episodes 100] [--out benchmarks/results/steer_ways.json]

The policies are those of the quick start (``experiment=demo``), which take either way by chance. A line of five points
past one side of the block is drawn for the tool; actions are changes of the tool's pose, so the objective integrates
them. Every steering is asked for either way over the same held-out episodes as the base. Settings were chosen on
seed 0's policy in the episodes 200000 to 200024.
"""

import argparse
import platform
from pathlib import Path
from typing import Any

import cloning
import torch

from robopol import __version__, evaluate, load_policy, make_env
from robopol.config import parse
from robopol.evaluation import SEED0
from robopol.evaluation.statistics import wilson
from robopol.files import write_json
from robopol.registry import lookup

RESULTS = Path(__file__).parent / "results"
WAYS = {"left": 1.0, "right": -1.0}


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
STEERINGS = {
    "best of 16": lambda side: [best_of(side, 16)],
    "guide": lambda side: [guide(side, 30.0)],
    "guide, time travel": lambda side: [guide(side, 30.0), TRAVEL],
    "guide, time travel, best of 4": lambda side: [guide(side, 30.0), TRAVEL, best_of(side, 4)],
    "GD of ITPS": lambda side: [released(side, 3.0)],
    "SS of ITPS": lambda side: [released(side, 9.0), TRAVEL | {"back": "renoise"}],
}
"""Name -> the steerings for a side; ITPS's scales are per step, chosen as the others were."""


def judge(run: Path, episodes: int) -> dict[str, dict[str, Any]]:
    """Return what a policy does when it is asked for nothing, and for either way in every manner."""
    policy = load_policy(run)
    assert policy.spec.env is not None
    rows = {}
    with make_env(policy.spec.env.id, 50, **policy.spec.env.options) as env:
        for name, steerings in {"base": None, **STEERINGS}.items():
            asked = {}
            for way, side in WAYS.items():
                trees = steerings(side) if steerings else []
                steered = policy.steered(*(parse(lookup("steering", t["kind"]), t) for t in trees)) if trees else policy
                found = evaluate(steered, env, episodes, SEED0)
                asked[way] = {
                    "success": [outcome.success for outcome in found.outcomes],
                    "obeyed": [outcome.way == way for outcome in found.outcomes],
                    "length_mean": found.length_mean,
                }
            rows[name] = asked
            print(f"  {name:30} " + " ".join(f"{way} {sum(row['obeyed'])}" for way, row in asked.items()), flush=True)
    return rows


def together(judged: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Put the training seeds together; successes are compared with the base's in the same episodes."""
    found = {}
    for name in judged[0]:
        pairs = [(rows[name][way], rows["base"][way]) for rows in judged for way in WAYS]
        success = [bool(s) for row, _ in pairs for s in row["success"]]
        obeyed = [bool(o) for row, _ in pairs for o in row["obeyed"]]
        base = [bool(s) for _, row in pairs for s in row["success"]]
        count, times = len(success), len(WAYS) if name == "base" else 1  # the base's are the same whatever is asked
        found[name] = {
            "episodes": count // times,
            "success_rate": sum(success) / count,
            "success_ci95": wilson(sum(success) // times, count // times),
            "obeyed_rate": sum(obeyed) / count,
            "obeyed_ci95": wilson(sum(obeyed) // times, count // times),
            "both_rate": sum(s and o for s, o in zip(success, obeyed, strict=True)) / count,
            "lost": sum(b and not s for s, b in zip(success, base, strict=True)),
            "won": sum(s and not b for s, b in zip(success, base, strict=True)),
            "obeyed_by_seed": [
                [sum(rows[name][way]["obeyed"]) / len(rows[name][way]["obeyed"]) for way in WAYS] for rows in judged
            ],
            "length_mean": sum(row["length_mean"] for row, _ in pairs) / len(pairs),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path("runs/steer_ways"))
    parser.add_argument("--out", type=Path, default=RESULTS / "steer_ways.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    demos = args.work / "push.hdf5"
    if not demos.exists():
        cloning.robopol("collect", "env=push", f"out={demos}", "episodes=200")
    judged = []
    for seed in args.seeds:
        run = args.work / f"push-{seed}"
        cloning.train(run, "experiment=demo", f"data.demos.uri={demos}", f"seed={seed}")
        print(run, flush=True)
        judged.append(judge(run, args.episodes))
    rows = together(judged)
    tree = {"robopol": __version__, "torch": torch.__version__, "platform": platform.platform(), "seeds": args.seeds}
    write_json(args.out, tree | {"rows": rows})
    for name, row in rows.items():
        print(f"{name:30} obeyed {row['obeyed_rate']:.1%} success {row['success_rate']:.1%} lost {row['lost']}")


if __name__ == "__main__":
    main()
