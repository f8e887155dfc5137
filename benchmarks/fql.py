"""FQL on a bandit: how near to its flow a policy of one step must stay, or it leaves the data for what Q makes up.

    python benchmarks/fql.py [--seeds 0 1 2] [--updates 2000] [--out benchmarks/results/fql.json]

Actions are drawn from eight Gaussians (standard deviation 0.05) on a ring of radius 0.8, and the reward is their first
entry: more of it is to be had outside the data, towards an edge of the box [-1, 1]^2, where Q has seen nothing. Told of
4000 actions, for each `alpha`: the mean reward (that of the data is 0; the best of the ring has 0.8), the share that is
further than three standard deviations from every Gaussian, and how far a jump ends from where the flow ends that began
with the same noise, as the root of the mean square. `flow` is the flow itself, in its ten steps.
"""

import argparse
from pathlib import Path
from typing import Any

import sections
import torch
from ebt import MODES, STD
from intervals import of_seeds
from torch import Tensor
from valued import learn

from robopol.data import Episodes, EpisodesMeta
from robopol.files import write_json

RESULTS = Path(__file__).parent / "results"
ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0)
COUNT, SAMPLES = 20_000, 4000
META = EpisodesMeta(
    control_hz=1.0, action_space="plane", action_names=("x", "y"), action_low=(-1.0, -1.0), action_high=(1.0, 1.0)
)
SIZE = {"n_obs_steps": 1, "horizon": 1, "n_action_steps": 1}
SPEC = SIZE | {
    "obs_shapes": {"nothing": [1]},
    "action_names": ["x", "y"],
    "action_low": [-1, -1],
    "action_high": [1, 1],
    "action_space": "plane",
    "control_hz": 1.0,
}
POLICY = SIZE | {
    "kind": "consistency",
    "net": {"kind": "mlp", "width": 128, "blocks": 2},
    "obs_normalization": "identity",
    "action_normalization": "identity",
}
Q = {"kind": "q", "hidden": [128, 128], "layer_norm": True}


def ring(seed: int) -> Episodes:
    """Return episodes of one step: nothing is seen, an action of the ring is taken, its first entry earned."""
    rng = torch.Generator().manual_seed(seed)
    action = MODES[torch.randint(8, (COUNT,), generator=rng)] + STD * torch.randn(COUNT, 2, generator=rng)
    zeros, yes, no = torch.zeros(COUNT, dtype=torch.int64), torch.ones(COUNT).bool(), torch.zeros(COUNT).bool()
    return Episodes(
        obs={"nothing": torch.zeros(COUNT, 1)},
        action=action.clamp(-1, 1),
        reward=action[:, 0].clone(),
        terminated=yes,
        truncated=no,
        source=zeros,
        intervention=no,
        starts=torch.arange(COUNT),
        lengths=torch.ones(COUNT, dtype=torch.int64),
        final_obs={"nothing": torch.zeros(COUNT, 1)},
        has_final=yes,
        success=no,
        way=zeros,
        seed=torch.arange(COUNT),
        meta=META,
    )


def figures(action: Tensor) -> dict[str, float]:
    """Say of actions (N, 2) what they earn, and how many of them are none of the data's."""
    nearest = torch.cdist(action, MODES).amin(1)
    return {"reward": action[:, 0].mean().item(), "outside": (nearest > 3 * STD).float().mean().item()}


def run(alpha: float, seed: int, updates: int) -> dict[str, dict[str, float]]:
    """Train with one alpha; return the figures of the policy and of its flow."""
    trees = {
        "policy": POLICY,
        "model": Q,
        "algo": {"kind": "fql", "alpha": alpha, "lr": 1e-3, "cloning": {"lr": 1e-3}},
    }
    algo = learn(trees, SPEC, {"ring": ring(seed)}, seed, updates)
    with torch.no_grad():
        noise = torch.randn(SAMPLES, 1, 2, generator=torch.Generator().manual_seed(1000 + seed))
        cond = algo.policy.observation({"nothing": torch.zeros(SAMPLES, 1, 1)}, 1)
        jumped, walked = (step(noise, cond)[:, 0].clamp(-1, 1) for step in (algo.policy.jump, algo.same.walk))
    apart = {"apart": (jumped - walked).square().mean().sqrt().item()}
    return {"jump": figures(jumped) | apart, "flow": figures(walked)}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## How near to its flow a jump must stay",
        "",
        "FQL on a bandit: eight Gaussians on a ring of radius 0.8 are the data, the first entry of an action is its "
        "reward, and Q knows nothing of what lies outside. `alpha` weighs the distance to the flow against Q. "
        f"{tree['updates']} updates, {len(tree['seeds'])} training seeds with their 95% intervals. "
        "`python benchmarks/fql.py`",
        "",
        "| alpha | mean reward | outside the data | from the flow, root of the mean square |",
        "|---|---|---|---|",
    ]
    for name, row in tree["rows"].items():
        told = [sections.mean(row[key]["mean"], row[key]["seeds_ci95"], 3) for key in ("reward", "outside")]
        apart = sections.mean(row["apart"]["mean"], row["apart"]["seeds_ci95"], 3) if "apart" in row else "-"
        lines.append(f"| {name} | {' | '.join(told)} | {apart} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS / "fql.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {}
    for alpha in ALPHAS:
        for seed in args.seeds:
            row = run(alpha, seed, args.updates)
            found.setdefault(f"{alpha:g}", []).append(row["jump"])
            if alpha == ALPHAS[-1]:
                found.setdefault("flow", []).append(row["flow"])
            print(f"alpha {alpha:g}, seed {seed}: {row}", flush=True)
    rows = {name: of_seeds(ones) for name, ones in found.items()}
    write_json(args.out, {"seeds": args.seeds, "updates": args.updates, "rows": rows})


if __name__ == "__main__":
    main()
