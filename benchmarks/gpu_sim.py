"""Speed of simulation on a GPU: steps a second of MuJoCo Warp for growing numbers of worlds, beside the CPU.

    pip install -e ".[warp]"
    python benchmarks/gpu_sim.py [--device cuda] [--worlds 1 64 1024 4096] [--ids robopol/Push-v0 HalfCheetah-v5]
        [--seconds 5] [--out benchmarks/results/gpu_sim.json]

One step is one action of one world: 40 physics steps in the arm's tasks, 5 in HalfCheetah. Actions are random, the
same every time, and made on the device. After every step the host reads which episodes are over, as training does, and
starts new ones; starting happens on the CPU and is timed apart: "reset" is what it costs for one world, and "with
resets" counts it once for as many steps as an episode may have. The CPU's rows are the same worlds stepped by native
threads on all cores; the machine should have nothing else to do.
"""

import argparse
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from robopol.envs import StepResult, VectorEnv, make_env
from robopol.files import write_json

ACTIONS = 16  # batches of random actions that are repeated
NATIVE = 64  # worlds of the CPU's row


def measure(env: VectorEnv, seconds: float) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(env.spec.action_low), torch.tensor(env.spec.action_high)
    actions = low + (high - low) * torch.rand(ACTIONS, env.num_envs, len(low), generator=generator)
    actions = actions.to(env.device)
    slots = list(range(env.num_envs))
    starting, started = start(env, slots, 0), env.num_envs
    for t in range(2):  # loads the kernels, and records the graph
        over = wait(env.step(slots, actions[t]))
        starting, started = starting + start(env, over, started), started + len(over)
    steps, stepping = 0, 0.0
    while stepping < seconds:
        begun = time.perf_counter()
        over = wait(env.step(slots, actions[steps % ACTIONS]))
        steps, stepping = steps + 1, stepping + time.perf_counter() - begun
        starting, started = starting + start(env, over, started), started + len(over)
    step, reset = stepping / (steps * env.num_envs), starting / started
    row = {
        "steps_per_second": 1 / step,
        "reset_milliseconds": 1e3 * reset,
        "steps_per_second_with_resets": 1 / (step + reset / env.spec.max_episode_steps),
    }
    if env.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(env.device)
        row["device_gigabytes_used"] = (total - free) / 2**30
    env.close()
    return row


def start(env: VectorEnv, slots: list[int], seed: int) -> float:
    """Start episodes and return how long that took, s."""
    begun = time.perf_counter()
    env.reset(slots, range(seed, seed + len(slots)))["state"].sum().item()
    return time.perf_counter() - begun


def wait(result: StepResult) -> list[int]:
    """Wait for a step and return the worlds whose episodes are over."""
    over: list[int] = (result.terminated | result.truncated).nonzero().flatten().tolist()
    return over


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    packages = ", ".join(f"{name} {version}" for name, version in tree["packages"].items())
    lines = [
        "## Simulation on a GPU",
        "",
        f"On {tree['device']}, beside the same worlds on {tree['cores']} CPU cores; {packages}. A reset is of one "
        'world; "with resets" counts it once an episode. `python benchmarks/gpu_sim.py`',
        "",
        "| world | simulated by | worlds | steps/s | with resets | a reset |",
        "|---|---|---|---|---|---|",
    ]
    for row in tree["rows"]:
        lines.append(
            f"| {row['id']} | {row['where']} | {row['worlds']} | {row['steps_per_second']:,.0f} | "
            f"{row['steps_per_second_with_resets']:,.0f} | {row['reset_milliseconds']:.2f} ms |"
        )
    return [*lines, ""]


def main() -> None:
    """Run every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 16, 256, 1024, 4096, 16384])
    parser.add_argument("--ids", nargs="+", default=["robopol/Reach-v0", "robopol/Push-v0", "HalfCheetah-v5"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    name = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else platform.processor()
    packages = {package: version(package) for package in ("mujoco", "mujoco-warp", "warp-lang", "torch")}
    device = f"{args.device} {name}"
    tree: dict[str, Any] = {"device": device, "cores": os.cpu_count(), "packages": packages, "rows": []}
    print(device, packages)
    print(f"{'world':22} {'simulated by':14} {'worlds':>7} {'steps/s':>12} {'with resets':>12} {'reset':>9}")
    for id in args.ids:
        for count in (0, *args.worlds):
            options: dict[str, Any] = {"backend": "warp", "device": args.device} if count else {}
            row = {"id": id, "where": f"warp, {args.device}" if count else "CPU, native", "worlds": count or NATIVE}
            row |= measure(make_env(id, row["worlds"], **options), args.seconds)
            tree["rows"].append(row)
            print(
                f"{id:22} {row['where']:14} {row['worlds']:7} {row['steps_per_second']:12,.0f} "
                f"{row['steps_per_second_with_resets']:12,.0f} {row['reset_milliseconds']:6.2f} ms",
                flush=True,
            )
    if args.out:
        write_json(args.out, tree)


if __name__ == "__main__":
    main()
