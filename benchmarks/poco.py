"""Costs at inference (PoCo; Wang et al. 2024, eq. 10): a frozen policy keeps away from a disc, or moves smoothly.

    python benchmarks/poco.py [--seeds 0 1 2] [--episodes 200] [--out benchmarks/results/poco.json]

The policies are those of the benchmark of feasibility: cloned in MultiGoal without obstacles, put into the world with a
forbidden disc. Here nothing is learned: the disc is told as a cost, and so is the square of second differences; each
guides the walk, from no weight at all to one that spoils the plans.
"""

import argparse
import platform
from pathlib import Path

import numpy as np
import safety
import steered
import torch

from robopol import __version__, evaluate, load_policy, make_env
from robopol.envs.multi_goal import DISC
from robopol.evaluation import SEED0, Evaluation
from robopol.evaluation.statistics import bootstrap_mean
from robopol.execution import BLOCK
from robopol.files import write_json
from robopol.policies import Policy
from robopol.steering import GuideConfig
from robopol.steering.objectives.keep_away import Disc, KeepAwayConfig
from robopol.steering.objectives.motion import Motion
from robopol.steering.objectives.smoothness import SmoothnessConfig

RESULTS = Path(__file__).parent / "results"
MOTION = Motion(actions=(0, 1), means="delta", start=(0, 1))
AWAY = (0.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
SMOOTH = (30.0, 300.0, 3000.0, 30000.0)


def rows(base: Policy) -> dict[str, Policy]:
    """Return every policy that is compared, by name."""
    x, y, radius = DISC
    away = KeepAwayConfig(discs=(Disc(centre=(x, y), radius=radius + 0.02),), motion=MOTION)
    found = {
        f"keep away, scale {scale:g}": base.steered(GuideConfig(objective=away, scale=scale, cap=0.5)) for scale in AWAY
    }
    smooth = SmoothnessConfig(motion=MOTION)
    return (
        {"base": base}
        | found
        | {
            f"smooth, scale {scale:g}": base.steered(GuideConfig(objective=smooth, scale=scale, cap=0.5))
            for scale in SMOOTH
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/safety"), help="that of the benchmark of feasibility")
    parser.add_argument("--out", type=Path, default=RESULTS / "poco.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    found: dict[str, list[Evaluation]] = {}
    costs: dict[str, list[float]] = {}
    for seed in args.seeds:
        run, _ = safety.prepare(seed, args.work)
        with make_env("robopol/MultiGoal-v0", BLOCK, **safety.WORLD) as env:
            for row, candidate in rows(load_policy(run)).items():
                found.setdefault(row, []).append(evaluate(candidate, env, args.episodes, SEED0))
                costs.setdefault(row, []).extend(safety.cost(candidate, range(SEED0, SEED0 + args.episodes)))
    table = {}
    for row, evaluations in found.items():
        executed = [evaluation.execution for evaluation in evaluations if evaluation.execution is not None]
        table[row] = steered.beside(found["base"], evaluations)
        table[row] |= {"cost": float(np.mean(costs[row])), "cost_ci95": bootstrap_mean(costs[row])}
        table[row] |= {"episodes_with_cost": float(np.mean([value > 0 for value in costs[row]]))}
        table[row] |= {"jerk": float(np.mean([one.jerk for one in executed if one.jerk is not None]))}
        print(f"{row:28} cost {table[row]['cost']:.2f} jerk {table[row]['jerk']:.3g} {table[row]['success_rate']:.1%}")
    told = {"robopol": __version__, "torch": torch.__version__, "platform": platform.platform(), "seeds": args.seeds}
    write_json(args.out, told | {"rows": table})


if __name__ == "__main__":
    main()
