"""Two routes that cross, of which one is never paid for and the other begins elsewhere: who takes the way of neither?

    python benchmarks/stitching.py [--seeds 0 1 2] [--updates 3000] [--out benchmarks/results/stitching.json]

In the plane one half of the demonstrations goes from (0, 0) over the crossing at (0.5, 0.5) to (1, 0), where nothing
is earned, the other from (0, 1) over it to (1, 1), where reward is. Trials begin at (0, 0), from where no
demonstration earned anything. Told is the share that comes to (1, 1), and the share that comes to (1, 0); the rest
stays about the crossing. Cloned are all demonstrations alike, by the mean of a Gaussian, by a diffusion policy and by a
flow; the Decision Diffuser is asked for the most that the data earned, with several weights of the asking, and for the
least; FQL learns by a critic what follows, how near to its flow `alpha` says, from rewards of 1 for each step there.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import sections
import torch
import valued
from beso import episodes
from decision_diffuser import EXECUTED, NET, POLICIES, learn
from intervals import of_seeds

from robopol.data import Episodes
from robopol.files import write_json
from robopol.policies import Policy
from robopol.policies.decision_diffuser import DecisionDiffuser

RESULTS = Path(__file__).parent / "results"
STARTS = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
CROSSING = torch.tensor([0.5, 0.5])
ENDS = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
LENGTH, LIMIT, TRIALS, SPEED, NEAR = 40, 60, 200, 0.05, 0.15
SPEC: dict[str, Any] = {
    "obs_shapes": {"state": [2]},
    "action_names": ["dx", "dy"],
    "action_low": [-0.1, -0.1],
    "action_high": [0.1, 0.1],
    "action_space": "displacement",
    "control_hz": 10.0,
}
WALKS: list[dict[str, float]] = [
    {"target": 1.0, "weight": 1.0},
    {"target": 1.0, "weight": 1.5},
    {"target": 1.0, "weight": 3.0},
    {"target": -1.0, "weight": 1.5},
]
FLOW: dict[str, Any] = {"kind": "flow", "net": NET, "sampler": {"kind": "euler", "steps": 10}}
ALPHAS = (1.0, 10.0, 100.0)


def demonstrations(count: int, seed: int) -> Episodes:
    """Record runs of both routes, half of each."""
    rng = torch.Generator().manual_seed(seed)
    route = torch.arange(count) % 2
    at = STARTS[route] + 0.03 * torch.randn(count, 2, generator=rng)
    over = torch.zeros(count, dtype=torch.bool)
    crossing, seen = CROSSING + 0.03 * torch.randn(count, 2, generator=rng), []
    for _ in range(LENGTH):
        over |= (at - crossing).norm(dim=1) < SPEED
        left = torch.where(over[:, None], ENDS[route], crossing) - at
        far = left.norm(dim=1, keepdim=True).clamp(min=1e-6)
        action = left / far * far.clamp(max=SPEED) + 0.01 * torch.randn(count, 2, generator=rng)
        arrived = (at - ENDS[1]).norm(dim=1) < NEAR
        seen.append((at, action.clamp(-0.1, 0.1), arrived.float() / LENGTH))
        at = at + action.clamp(-0.1, 0.1)
    columns = (torch.stack(column, 1) for column in zip(*seen, strict=True))
    return episodes(*columns, at)


def jumper(alpha: float, data: Episodes, seed: int, updates: int) -> Policy:
    """Train FQL on chunks of what is executed."""
    size = {"n_obs_steps": 1, "horizon": EXECUTED, "n_action_steps": EXECUTED}
    trees = {
        "policy": {"kind": "consistency", "net": NET, **size},
        "model": {"kind": "q", "hidden": [256, 256], "layer_norm": True, "discount": 0.98},
        "algo": {"kind": "fql", "alpha": alpha, "lr": 1e-3, "critic_lr": 1e-3, "cloning": {"lr": 1e-3, "warmup": 100}},
    }
    earned = {"walks": replace(data, reward=data.reward * LENGTH)}
    policy: Policy = valued.learn(trees, SPEC | size, earned, seed, updates).deployed()
    return policy


def ends(policy: Policy, seed: int) -> dict[str, float]:
    """Return where trials from the start that never earned come to."""
    rng = torch.Generator().manual_seed(1000 + seed)
    at = STARTS[0] + 0.03 * torch.randn(TRIALS, 2, generator=rng)
    came = torch.zeros(TRIALS, 2, dtype=torch.bool)
    for _ in range(LIMIT // EXECUTED):
        for action in policy.act({"state": at[:, None]}, generator=rng)[:, 0, :EXECUTED].unbind(1):
            at = at + action.clamp(-0.1, 0.1)
            came |= torch.cdist(at, ENDS) < NEAR
    return {"paid": came[:, 1].float().mean().item(), "unpaid": came[:, 0].float().mean().item()}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Routes that cross",
        "",
        "One half of the demonstrations goes from A over a crossing to where nothing is earned, the other from B over "
        "it to where all is. Trials begin at A: where do they come to? The rest stays about the crossing. "
        f"{TRIALS} trials, {len(tree['seeds'])} training seeds with their 95% intervals. "
        "`python benchmarks/stitching.py`",
        "",
        "| policy | to where all is earned | to where nothing is |",
        "|---|---|---|",
    ]
    for name, row in tree["rows"].items():
        told = [sections.share(row[key]["mean"], row[key]["seeds_ci95"]) for key in ("paid", "unpaid")]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=RESULTS / "stitching.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in args.seeds:
        data = demonstrations(300, seed)
        for name, tree in (POLICIES | {"flow": FLOW}).items():
            policy = learn(tree, data, seed, args.updates, SPEC)
            for change in WALKS if isinstance(policy, DecisionDiffuser) else [{}]:
                if isinstance(policy, DecisionDiffuser):
                    policy.config = policy.config.model_copy(update=change)
                row = ", ".join([name, *(f"{key} {value:g}" for key, value in change.items())])
                found.setdefault(row, []).append(ends(policy, seed))
                print(f"seed {seed}: {row}: {found[row][-1]}", flush=True)
        for alpha in ALPHAS:
            row = f"fql, alpha {alpha:g}"
            found.setdefault(row, []).append(ends(jumper(alpha, data, seed, args.updates), seed))
            print(f"seed {seed}: {row}: {found[row][-1]}", flush=True)
    rows = {name: of_seeds(ones) for name, ones in found.items()}
    write_json(args.out, {"seeds": args.seeds, "updates": args.updates, "rows": rows})


if __name__ == "__main__":
    main()
