"""Demonstrations that wait: what is executed of a plan decides whether a policy that sees no clock waits rightly.

    python benchmarks/pausing.py [--seeds 0 1 2] [--updates 3000] [--out benchmarks/results/pausing.json]

On a line from 0 to 1 lie two stations, where a demonstrator rests, for 5 or for 12 steps, as one does while a gripper
closes, and then goes on. Seen is the position alone, so that while it rests all steps look alike. A trial succeeds if
it rested as long at each station, to a quarter, and came to the end; told is besides how long it rested at the first
one (median and 90th percentile, 60 where it never left). Plans are of 16 actions; executed are 1 to 12 of them before
the next plan. `diffusion` draws its plans, `gaussian` acts with the mean of what was demonstrated. They see the last
two positions; `diffusion, 16 observations` sees sixteen, and so for how long it has rested.
"""

import argparse
from pathlib import Path
from typing import Any

import sections
import torch
from beso import episodes
from intervals import of_seeds
from torch import Tensor

from robopol.algos.bc import BCConfig
from robopol.config import parse
from robopol.data import Episodes
from robopol.files import write_json
from robopol.networks.precision import RuntimeConfig
from robopol.policies import Policy, PolicySpec
from robopol.registry import lookup
from robopol.training.sources import Sources

RESULTS = Path(__file__).parent / "results"
STATIONS, RESTS = (0.3, 0.7), (5, 12)
SPEED, STILL, LENGTH, LIMIT, TRIALS = 0.05, 0.02, 60, 120, 200
EXECUTED = (1, 2, 4, 8, 12)
NET = {"kind": "film_mlp", "width": 256, "blocks": 2, "features": 128}
POLICIES: dict[str, dict[str, Any]] = {
    "diffusion": {"kind": "diffusion", "net": NET, "sampler": {"kind": "ddim", "steps": 10}},
    "gaussian": {"kind": "gaussian", "hidden": [256, 256, 256]},
}
POLICIES["diffusion, 16 observations"] = POLICIES["diffusion"] | {"n_obs_steps": 16}
AHEAD = 16
SPEC = {
    "obs_shapes": {"state": [1]},
    "action_names": ["step"],
    "action_low": [-0.1],
    "action_high": [0.1],
    "action_space": "displacement",
    "control_hz": 10.0,
}


def demonstrations(count: int, rest: int, seed: int) -> Episodes:
    """Record runs with a rest of so many steps at each station; at the end they rest as well."""
    rng = torch.Generator().manual_seed(seed)
    at = 0.02 * torch.randn(count, generator=rng)
    pace = SPEED * (1 + 0.1 * torch.randn(count, generator=rng))
    ahead = torch.tensor([*STATIONS, 1.0]).repeat(count, 1) + 0.02 * torch.randn(count, 3, generator=rng)
    stage, rested, seen = torch.zeros(count, dtype=torch.int64), torch.zeros(count), []
    for _ in range(LENGTH):
        left = ahead.gather(1, stage[:, None])[:, 0] - at
        there = left <= 1e-6
        action = torch.where(there, 0.0, torch.minimum(pace, left))
        seen.append((at[:, None], action[:, None], torch.zeros(count)))
        rested = torch.where(there, rested + 1, 0.0)
        stage = torch.where(there & (rested >= rest) & (stage < 2), stage + 1, stage)
        at = at + action
    columns = (torch.stack(column, 1) for column in zip(*seen, strict=True))
    return episodes(*columns, at[:, None])


def learn(tree: dict[str, Any], data: Episodes, seed: int, updates: int) -> Policy:
    """Clone the demonstrations."""
    torch.manual_seed(seed)
    seen = tree.get("n_obs_steps", 2)
    size = {"n_obs_steps": seen, "horizon": seen - 1 + AHEAD, "n_action_steps": EXECUTED[-1]}
    config: Any = parse(lookup("policy", tree["kind"]), tree | size)
    policy = config.build(parse(PolicySpec, SPEC | size))
    policy.fit_normalizers(data)
    algo = BCConfig(lr=1e-3, warmup=100).build(policy, updates, RuntimeConfig(threads=1, matmul="highest").build())
    sources = Sources({"rests": data}, policy.spec, seed, torch.device("cpu"), needs=policy.needs)
    policy.train()
    for step in range(updates):
        algo.update(sources.batch({"rests": 1.0}, 256, step), step, torch.Generator().manual_seed(seed + 10 * step))
    return algo.deployed().eval()


def trials(policy: Policy, executed: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Let a policy act; return how long it rested at each station (TRIALS,), and where it ended."""
    rng = torch.Generator().manual_seed(1000 + seed)
    at = 0.02 * torch.randn(TRIALS, generator=rng)
    seen, rests = [at] * policy.spec.n_obs_steps, torch.zeros(2, TRIALS)
    for _ in range(LIMIT // executed):
        history = torch.stack(seen[-policy.spec.n_obs_steps :], 1)[..., None]
        for action in policy.act({"state": history}, generator=rng)[:, 0, :executed, 0].unbind(1):
            for k, station in enumerate(STATIONS):
                rests[k] += ((seen[-1] - station).abs() < 0.1) & (action.abs() < STILL)
            seen.append(seen[-1] + action.clamp(-0.1, 0.1))
    return rests[0], rests[1], seen[-1]


def judge(policy: Policy, rest: int, executed: int, seed: int) -> dict[str, float]:
    """Return the figures of one policy."""
    first, second, at = trials(policy, executed, seed)
    right = [(rested - rest).abs() <= rest / 4 for rested in (first, second)]
    spread = first.clamp(max=60).quantile(torch.tensor([0.5, 0.9])).tolist()
    done = right[0] & right[1] & (at > 0.9)
    return {"success": done.float().mean().item(), "rest_p50": spread[0], "rest_p90": spread[1]}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Demonstrations that wait",
        "",
        "A demonstrator rests at two stations; the policy sees no clock, and while it rests all looks alike. Success "
        f"is a rest as long, to a quarter, at both, and the end reached; {TRIALS} trials, {len(tree['seeds'])} "
        "training seeds with their 95% intervals. `python benchmarks/pausing.py`",
        "",
        "| rests of | policy | actions executed of a plan | success | rest at the first station, p50 / p90 |",
        "|---|---|---|---|---|",
    ]
    for row in tree["rows"]:
        rested = f"{row['rest_p50']['mean']:.0f} / {row['rest_p90']['mean']:.0f} steps"
        success = sections.share(row["success"]["mean"], row["success"]["seeds_ci95"])
        lines.append(f"| {row['rest']} steps | {row['policy']} | {row['executed']} | {success} | {rested} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=RESULTS / "pausing.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[int, str, int], list[dict[str, float]]] = {}
    for rest in RESTS:
        for seed in args.seeds:
            data = demonstrations(200, rest, seed)
            for name, tree in POLICIES.items():
                policy = learn(tree, data, seed, args.updates)
                for executed in EXECUTED:
                    row = judge(policy, rest, executed, seed)
                    found.setdefault((rest, name, executed), []).append(row)
                    print(f"rests of {rest}, {name}, {executed} executed, seed {seed}: {row}", flush=True)
    rows = [
        {"rest": rest, "policy": name, "executed": executed} | of_seeds(ones)
        for (rest, name, executed), ones in found.items()
    ]
    write_json(args.out, {"seeds": args.seeds, "updates": args.updates, "rows": rows})


if __name__ == "__main__":
    main()
