"""Diffusion-QL and CPQL on a bandit: of eight ways that were recorded alike, which one is taken once one of them earns?

    python benchmarks/diffusion_ql.py [--seeds 0 1 2] [--updates 2000] [--out benchmarks/results/diffusion_ql.json]

Actions are drawn from eight Gaussians (standard deviation 0.05) on a ring of radius 0.8, as in `fql.py`; the reward is
1 for those of the first, else 0. Told of 4000 actions of the policy as it acts, for each `weight` of Q: the share
within three standard deviations of the Gaussian that earns, that within three of any, and the updates a second. Actions
come by five steps of a diffusion policy (Diffusion-QL), or by one jump or two of a consistency policy (CPQL).
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fql
import sections
import torch
from ebt import MODES, STD
from intervals import of_seeds
from valued import learn

from robopol.data import Episodes
from robopol.files import write_json

RESULTS = Path(__file__).parent / "results"
WEIGHTS = (0.0, 0.3, 1.0, 3.0)
PLAIN = {key: fql.POLICY[key] for key in ("net", "obs_normalization", "action_normalization")} | fql.SIZE
KINDS: dict[str, dict[str, Any]] = {
    "diffusion, 5 steps": {"kind": "diffusion", "sampler": {"kind": "ddpm", "steps": 5}},
    "consistency, 1 jump": {"kind": "consistency"},
    "consistency, 2 jumps": {"kind": "consistency", "sampler": {"kind": "consistency", "steps": 2}},
}


def paid(seed: int) -> Episodes:
    """Return `fql.ring`, where the actions of the first Gaussian earn 1."""
    episodes = fql.ring(seed)
    first = torch.cdist(episodes.action, MODES).argmin(1) == 0
    return replace(episodes, reward=first.float())


def run(kind: str, weight: float, seed: int, updates: int) -> dict[str, float]:
    """Train one policy; return the figures of what it does."""
    trees = {
        "policy": PLAIN | KINDS[kind],
        "model": fql.Q,
        "algo": {"kind": "diffusion_ql", "weight": weight, "lr": 1e-3, "critic_lr": 1e-3},
    }
    begun = time.monotonic()
    algo = learn(trees, fql.SPEC, {"ring": paid(seed)}, seed, updates)
    speed = updates / (time.monotonic() - begun)
    rng = torch.Generator().manual_seed(1000 + seed)
    action = algo.deployed().act({"nothing": torch.zeros(fql.SAMPLES, 1, 1)}, 1, rng)[:, 0, 0]
    near = torch.cdist(action, MODES) < 3 * STD
    return {
        "earning": near[:, 0].float().mean().item(),
        "any": near.any(1).float().mean().item(),
        "updates_s": speed,
    }


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## The way that earns",
        "",
        "Diffusion-QL and CPQL on a bandit: eight Gaussians on a ring are the data, and the actions of one of them "
        f"earn 1. `weight` is that of Q. {tree['updates']} updates, {len(tree['seeds'])} training seeds with their 95% "
        "intervals. `python benchmarks/diffusion_ql.py`",
        "",
        "| policy | weight | on the one that earns | on any | updates/s |",
        "|---|---|---|---|---|",
    ]
    for name, row in tree["rows"].items():
        told = [sections.share(row[key]["mean"], row[key]["seeds_ci95"]) for key in ("earning", "any")]
        kind, _, weight = name.rpartition(", ")
        lines.append(f"| {kind} | {weight} | {' | '.join(told)} | {row['updates_s']['mean']:.0f} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS / "diffusion_ql.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {}
    for kind in KINDS:
        for weight in WEIGHTS:
            for seed in args.seeds:
                found.setdefault(f"{kind}, {weight:g}", []).append(run(kind, weight, seed, args.updates))
                print(f"{kind}, weight {weight:g}, seed {seed}: {found[f'{kind}, {weight:g}'][-1]}", flush=True)
    rows = {name: of_seeds(ones) for name, ones in found.items()}
    write_json(args.out, {"seeds": args.seeds, "updates": args.updates, "rows": rows})


if __name__ == "__main__":
    main()
