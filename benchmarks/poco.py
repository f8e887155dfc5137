"""Costs at inference (PoCo; Wang et al. 2024, eq. 10): a frozen policy keeps away from a disc, or moves smoothly.

    python benchmarks/poco.py [--seeds 0 1 2] [--episodes 200] [--out benchmarks/results/poco.json]

The policies are those of the benchmark of feasibility: cloned in MultiGoal without obstacles, put into the world with a
forbidden disc. Here nothing is learned: the disc is told as a cost, and so is the square of second differences; each
guides the walk, from no weight at all to one that spoils the plans.
"""

import argparse
from pathlib import Path
from typing import Any

import safety
import sections
import steered
import torch
from ledger import Ledger

from robopol import load_policy
from robopol.envs.multi_goal import DISC
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


CURVES = (
    steered.Curve(
        "scale of keeping away",
        {scale: f"keep away, scale {scale:g}" for scale in AWAY if scale > 0},
        safety.COST,
        logarithmic=True,
    ),
    steered.Curve(
        "scale of smoothness", {scale: f"smooth, scale {scale:g}" for scale in SMOOTH}, safety.JERK, logarithmic=True
    ),
)


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    tables = tree["tables"]
    lines = [
        "## Costs at inference",
        "",
        "The same policies, guided by a cost that the user states (PoCo), from no weight to too much; "
        f"{sections.seeds(tables['rows'])} training seeds. `python benchmarks/poco.py`",
        "",
    ]
    return [*lines, *safety.costly(tables), *steered.picture("poco", "Steps in the disc, and jerk, over scales"), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/safety"), help="that of the benchmark of feasibility")
    parser.add_argument("--out", type=Path, default=RESULTS / "poco.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    ledger = Ledger(args.out, {"demos": safety.DEMOS, "updates": safety.UPDATES, "episodes": args.episodes})
    candidates: dict[str, Policy] = {}
    for seed in args.seeds:
        run, _ = safety.prepare(seed, args.work)
        candidates = rows(load_policy(run))
        safety.measure(candidates, seed, args.episodes, ledger)
    safety.tell(candidates, CURVES, ledger)


if __name__ == "__main__":
    main()
