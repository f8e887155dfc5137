"""The energy-based flow of MEow: densities it can hold, the Q it recovers, and cloning with it.

    python benchmarks/meow.py [--seeds 0 1 2] [--updates 1000] [--tasks push reach] [--work runs/meow]

Toys: 2-D densities that a condition turns, of which the truth is known, learned by maximum likelihood from fresh
samples and judged by the Kullback-Leibler divergence from the truth, in nats. The released network (one Gaussian,
additive couplings) beside affine couplings, a mixture prior, both, and the mixture alone.

Bandit: rewards r(s, a) = -|artanh(a) - m(s)|^2 / (2 v) - alpha sum log(1 - a^2), which are exactly the Q of a flow with
z ~ N(0, alpha v) shifted by m(s). Q is fitted to them by least squares; what is learned is compared with m and v.

Tasks: the policy cloned on Push and Reach from the same demonstrations as in `imitation.py`.
"""

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloning
import sections
import torch
from intervals import over_seeds
from torch import Tensor
from torch import distributions as td

from robopol.files import write_json
from robopol.networks.energy_flow import EnergyFlow
from robopol.policies.gmm import cluster

RESULTS = Path(__file__).parent / "results"
FLOWS: dict[str, dict[str, Any]] = {
    "released": {"modes": 1, "coupling": "additive", "pairs": 2},
    "affine": {"modes": 1, "coupling": "affine", "pairs": 2},
    "mixture, no coupling": {"modes": 5, "coupling": "affine", "pairs": 0},
    "mixture, additive": {"modes": 5, "coupling": "additive", "pairs": 2},
    "mixture, affine": {"modes": 5, "coupling": "affine", "pairs": 2},
}
TASKS = {"push": (200, 3000), "reach": (100, 1000)}
"""Task -> demonstrations, updates."""
CLONED = {
    "default": [],
    "released": ["policy.modes=1", "policy.coupling=additive"],
}
ALPHA, V = 0.25, 0.4


def flow(seed: int, **shape: Any) -> EnergyFlow:
    torch.manual_seed(seed)
    sizes = {"hidden": (64, 64), "shift_hidden": (64, 64), "log_std": (-5.0, -0.3), "box": 1.0, "alpha": ALPHA}
    return EnergyFlow(2, 1, **shape, **sizes)


def bumps(turn: Tensor, count: int, std: float) -> td.Distribution:
    """Gaussians on a circle, turned by the condition (B, 1) in [-1, 1]."""
    angle = turn * math.pi / 4 + 2 * math.pi * torch.arange(count) / count  # (B, count)
    centres = 0.6 * torch.stack([angle.cos(), angle.sin()], -1)
    return td.MixtureSameFamily(
        td.Categorical(torch.ones(len(turn), count)), td.Independent(td.Normal(centres, std), 1)
    )


TOYS: dict[str, Callable[[Tensor], td.Distribution]] = {
    "two ways": lambda turn: bumps(turn, 2, 0.08),
    "four goals": lambda turn: bumps(turn, 4, 0.08),
    "ring": lambda turn: bumps(turn, 24, 0.06),
}


def minimise(model: EnergyFlow, loss: Callable[[], Tensor], updates: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        optimizer.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 30)  # as released
        optimizer.step()
        schedule.step()


def conditions(count: int) -> Tensor:
    return 2 * torch.rand(count, 1) - 1


def divergence(toy: str, shape: dict[str, Any], seed: int, updates: int) -> float:
    """Return KL(truth || learned), nats, averaged over conditions."""
    model, truth = flow(seed, **shape), TOYS[toy]
    model.start_at(cluster(truth(conditions(2000)).sample(), model.modes), torch.ones(2, dtype=torch.bool))

    def loss() -> Tensor:
        turn = conditions(256)
        return -model.log_prob(turn, truth(turn).sample()).mean()

    minimise(model, loss, updates)
    turn = conditions(10_000)
    action = truth(turn).sample()
    with torch.no_grad():
        return (truth(turn).log_prob(action) - model.log_prob(turn, action)).mean().item()


def bandit(seed: int, updates: int) -> dict[str, float]:
    """Fit Q to a reward that it can represent; return how far the policy is from the truth."""
    model = flow(seed, **FLOWS["released"])

    def mean(turn: Tensor) -> Tensor:
        return 0.5 * torch.cat([(2 * turn).sin(), turn.cos()], -1)

    def error(count: int) -> Tensor:
        turn, action = conditions(count), 1.8 * torch.rand(count, 2) - 0.9
        squash = torch.log1p(-(action**2)).sum(-1)
        reward = -(action.atanh() - mean(turn)).square().sum(-1) / (2 * V) - ALPHA * squash
        return (model.q(turn, action) - reward).square().mean()  # both heads

    minimise(model, lambda: error(256), updates)
    turn, std = conditions(500), math.sqrt(ALPHA * V)
    with torch.no_grad():
        drawn = model.sample(turn[:, None], torch.randn(500, 2000, 3))[0].atanh()
        return {
            "q_mse": error(10_000).item(),
            "mean_error_in_std": ((model.mode(turn).atanh() - mean(turn)).abs() / std).mean().item(),
            "std_ratio": (drawn.std(1) / std).mean().item(),
            "v_error": (model.v(turn) - 2 * ALPHA * math.log(math.sqrt(2 * math.pi) * std)).abs().mean().item(),
        }


def clone(task: str, seeds: list[int], work: Path, jobs: int) -> dict[str, Any]:
    episodes, updates = TASKS[task]
    demos = work / f"{task}.hdf5"
    if not demos.exists():
        work.mkdir(parents=True, exist_ok=True)
        cloning.robopol("collect", f"env={task}", f"out={demos}", f"episodes={episodes}")
    runs = {name: [work / f"{task}-{name}-{seed}" for seed in seeds] for name in CLONED}

    def train(job: tuple[int, str]) -> None:
        seed, name = job
        cloning.train(
            work / f"{task}-{name}-{seed}",
            f"env={task}",
            "policy=meow",
            "algo.lr=1e-3",
            *CLONED[name],
            f"data.demos.uri={demos}",
            f"seed={seed}",
            f"phases.cloning.updates={updates}",
        )

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train, [(seed, name) for seed in seeds for name in CLONED]))
    return {name: cloning.judge(folders) for name, folders in runs.items()}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Flows as energies",
        "",
        f"What densities the flow of MEow can hold: divergence from the truth in nats after {tree['updates']} updates, "
        f"{len(tree['seeds'])} training seeds, 95% intervals over them. Released: one Gaussian, additive couplings. "
        "`python benchmarks/meow.py`",
        "",
        f"| density | {' | '.join(FLOWS)} |",
        "|---" * (1 + len(FLOWS)) + "|",
    ]
    for toy, found in tree["kl_nats"].items():
        cells = [sections.mean(found[name]["mean"], found[name]["seeds_ci95"]) for name in FLOWS]
        lines.append(f"| {toy} | {' | '.join(cells)} |")
    bandit = {key: sections.mean(row["mean"], row["seeds_ci95"], 4) for key, row in tree["bandit"].items()}
    lines += [
        "",
        f"A bandit whose Q such a flow can be: squared error of Q {bandit['q_mse']}; of the mean, in standard "
        f"deviations, {bandit['mean_error_in_std']}; ratio of the standard deviations {bandit['std_ratio']}; error of "
        f"V {bandit['v_error']}.",
        "",
    ]
    if tree.get("tasks"):
        lines += ["| task | couplings | success | by seed | ways |", "|---|---|---|---|---|"]
        for task, rows in tree["tasks"].items():
            for name, row in rows.items():
                cells = [task, name, sections.percent(row), sections.by_seed(row), sections.ways(row)]
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=1000, help="of each toy; the bandit gets four times as many")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--jobs", type=int, default=2, help="cloning runs at a time")
    parser.add_argument("--work", type=Path, default=Path("runs/meow"))
    parser.add_argument("--out", type=Path, default=RESULTS / "meow.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tree: dict[str, Any] = {"seeds": args.seeds, "updates": args.updates, "kl_nats": {}}
    for toy in TOYS:
        tree["kl_nats"][toy] = {
            name: over_seeds([divergence(toy, shape, seed, args.updates) for seed in args.seeds])
            for name, shape in FLOWS.items()
        }
        print(toy, {name: round(row["mean"], 3) for name, row in tree["kl_nats"][toy].items()}, flush=True)
    found = [bandit(seed, 4 * args.updates) for seed in args.seeds]
    tree["bandit"] = {key: over_seeds([row[key] for row in found]) for key in found[0]}
    print("bandit", {key: row["mean"] for key, row in tree["bandit"].items()}, flush=True)
    write_json(args.out, tree)
    tree["tasks"] = {}
    for task in args.tasks:
        tree["tasks"][task] = clone(task, args.seeds, args.work, args.jobs)
        print(task, {name: row["by_seed"] for name, row in tree["tasks"][task].items()}, flush=True)
        write_json(args.out, tree)


if __name__ == "__main__":
    main()
