"""Two things asked for at once of a Decision Diffuser that was told each of them alone: are both done?

    python benchmarks/two_wishes.py [--seeds 0 1 2] [--updates 3000] [--out benchmarks/results/two_wishes.json]

In the plane each demonstration goes up from (0.5, 0) in a lane of its own, at a speed of its own; lane and speed are
drawn apart. Labels say of an episode whether its lane was in the left quarter and whether its speed was in the slower
third: of one in twelve demonstrations both. Asked for is neither, either one, or both, by adding up what each changes
(composition of conditions: Liu et al. 2022; Ajay et al. 2023), with several weights. Told is the share of trials that
stay left in the upper half, that are slow, and that do both.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import sections
import torch
from beso import episodes
from decision_diffuser import EXECUTED, POLICIES, learn
from intervals import of_seeds
from torch import Tensor

from robopol.data import Episodes
from robopol.files import write_json
from robopol.policies import Policy
from robopol.policies.decision_diffuser import DecisionDiffuser

RESULTS = Path(__file__).parent / "results"
LENGTH, LIMIT, TRIALS, COUNT = 40, 60, 200, 600
START, LEFT, SLOWEST, FASTEST = (0.5, 0.0), 0.25, 0.02, 0.08
SLOW = SLOWEST + (FASTEST - SLOWEST) / 3
SPEC: dict[str, Any] = {
    "obs_shapes": {"state": [2]},
    "action_names": ["dx", "dy"],
    "action_low": [-0.1, -0.1],
    "action_high": [0.1, 0.1],
    "action_space": "displacement",
    "control_hz": 10.0,
}
WISHES = {"neither": {}, "left": {"left": 1.0}, "slow": {"slow": 1.0}, "both": {"left": 1.0, "slow": 1.0}}
WEIGHTS = (1.0, 1.5, 2.0)


def demonstrations(seed: int) -> Episodes:
    """Record the way up in every lane at every speed, with two labels."""
    rng = torch.Generator().manual_seed(seed)
    lane = torch.rand(COUNT, generator=rng)
    speed = SLOWEST + (FASTEST - SLOWEST) * torch.rand(COUNT, generator=rng)
    at = torch.tensor(START) + 0.02 * torch.randn(COUNT, 2, generator=rng)
    seen = []
    for _ in range(LENGTH):
        # towards the lane, ever more upwards, at one speed
        way = torch.stack([lane - at[:, 0], (0.1 + (0.3 - (lane - at[:, 0]).abs())).clamp(min=0.1)], -1)
        action = speed[:, None] * way / way.norm(dim=1, keepdim=True) + 0.003 * torch.randn(COUNT, 2, generator=rng)
        seen.append((at, action.clamp(-0.1, 0.1), torch.zeros(COUNT)))
        at = at + action.clamp(-0.1, 0.1)
    made = episodes(*(torch.stack(column, 1) for column in zip(*seen, strict=True)), at)
    labels = {"left": lane < LEFT, "slow": speed < SLOW}
    told = {name: label.float().repeat_interleave(LENGTH)[:, None] for name, label in labels.items()}
    final = {name: label.float()[:, None] for name, label in labels.items()}
    return replace(made, obs=made.obs | told, final_obs=made.final_obs | final)


def trials(policy: Policy, seed: int) -> dict[str, float]:
    """Return what share of trials does what was, or was not, asked for."""
    rng = torch.Generator().manual_seed(1000 + seed)
    at = torch.tensor(START) + 0.02 * torch.randn(TRIALS, 2, generator=rng)
    places, steps = [at], []
    for _ in range(LIMIT // EXECUTED):
        for action in policy.act({"state": at[:, None]}, generator=rng)[:, 0, :EXECUTED].unbind(1):
            steps.append(action.clamp(-0.1, 0.1).norm(dim=1))
            at = at + action.clamp(-0.1, 0.1)
            places.append(at)
    way, pace = torch.stack(places), torch.stack(steps)
    upper = way[..., 1] > 0.5
    came = upper.any(0)
    left = came & _mean(way[..., 0], upper).lt(LEFT)
    slow = came & _mean(pace, way[:-1, :, 1] < 1.0).lt(SLOW)
    return {name: one.float().mean().item() for name, one in (("left", left), ("slow", slow), ("both", left & slow))}


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    return (values * counts).sum(0) / counts.sum(0).clamp(min=1)


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Two things asked for at once",
        "",
        "A Decision Diffuser that was told of demonstrations whether they were in the left quarter, and whether slow, "
        f"is asked for one or both: what each alone changes is added up. {TRIALS} trials, {len(tree['seeds'])} "
        "training seeds with their 95% intervals. `python benchmarks/two_wishes.py`",
        "",
        "| asked for | stays left | is slow | both |",
        "|---|---|---|---|",
    ]
    for name, row in tree["rows"].items():
        told = [sections.share(row[key]["mean"], row[key]["seeds_ci95"]) for key in ("left", "slow", "both")]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=RESULTS / "two_wishes.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in args.seeds:
        labels = {"left": None, "slow": None}
        tree = POLICIES["decision diffuser"] | {"target": None, "labels": labels}
        policy = learn(tree, demonstrations(seed), seed, args.updates, SPEC)
        assert isinstance(policy, DecisionDiffuser)
        for wish, asked in WISHES.items():
            for weight in WEIGHTS if asked else (1.0,):
                change = {"labels": labels | asked, "weight": weight}
                policy.config = policy.config.model_copy(update=change)
                row = f"{wish}, weight {weight:g}" if asked else wish
                found.setdefault(row, []).append(trials(policy, seed))
                print(f"seed {seed}: {row}: {found[row][-1]}", flush=True)
    rows = {name: of_seeds(ones) for name, ones in found.items()}
    write_json(args.out, {"seeds": args.seeds, "updates": args.updates, "rows": rows})


if __name__ == "__main__":
    main()
