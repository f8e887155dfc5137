"""A policy through the whole bridge: vendor's client, emulated controller, late plans (T17); used by bridge.py.

    python benchmarks/bridge_tasks.py RUN --kept FILE.json [--episodes 50] [--rows "bridge, 100 ms late, matched" ...]

Every row is the same policy in the same episodes, from the same seeds, so differences are paired. ``in process``: the
simulator that it was trained in, with the executors of docs/execution.md. The other rows: servo loop, filter, the
driver `ur`, the unmodified ur-rtde, an emulated controller that holds the same scene, in lock-step, so how busy the
machine is does not matter. Late plans are executed as they come (naive), by the times that they were made for
(matched), or made to go on from the last plan besides (RTC: ``execution=real_time_chunking``, told d with every plan).
Every episode is written as it ends, and is not run again.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopol.config import parse
from robopol.configs import load_config
from robopol.errors import RobopolError
from robopol.evaluation import rollout
from robopol.evaluation.fitness import histories
from robopol.evaluation.rollout import Outcome
from robopol.evaluation.statistics import mcnemar, paired, wilson
from robopol.execution import ExecutorConfig, RealTimeChunkingConfig, RecedingHorizonConfig
from robopol.export.export import export, rolled_out
from robopol.files import write_json
from robopol.loading import load_policy
from robopol.policies import Policy
from robopol.real_robot.placing import modelled
from robopol.real_robot.rehearsal import rehearse
from robopol.real_robot.rigs import OnUR
from robopol.real_robot.robot import RobotConfig

SEED = 300_000
PERIOD = 0.008
IN_PROCESS: dict[str, ExecutorConfig] = {
    "in process": RecedingHorizonConfig(),
    "in process, 100 ms late": RecedingHorizonConfig(latency=1),
    "in process, 100 ms late, RTC": RealTimeChunkingConfig(latency=1, n_action_steps=8),
    "in process, 200 ms late": RecedingHorizonConfig(latency=2),
    "in process, 200 ms late, RTC": RealTimeChunkingConfig(latency=2, n_action_steps=8),
}
BRIDGE: dict[str, dict[str, Any]] = {
    "bridge": {},
    "bridge, 100 ms late, naive": {"latency": 0.1, "matched": False},
    "bridge, 100 ms late, matched": {"latency": 0.1},
    "bridge, 100 ms late, RTC": {"latency": 0.1, "execution": RealTimeChunkingConfig(n_action_steps=8)},
    "bridge, 200 ms late, matched": {"latency": 0.2},
    "bridge, 200 ms late, RTC": {"latency": 0.2, "execution": RealTimeChunkingConfig(n_action_steps=8)},
    "bridge, 200 ms late, naive": {"latency": 0.2, "matched": False},
}
BESIDE = {
    "bridge": "in process",
    "bridge, 100 ms late, naive": "bridge",
    "bridge, 100 ms late, matched": "in process, 100 ms late",
    "bridge, 100 ms late, RTC": "in process, 100 ms late, RTC",
    "bridge, 200 ms late, matched": "in process, 200 ms late",
    "bridge, 200 ms late, RTC": "in process, 200 ms late, RTC",
    "bridge, 200 ms late, naive": "bridge",
}
"""The row that a row is compared with."""


def robot_of(folder: Path) -> RobotConfig:
    """Return the arm suite's UR5e, at the rate of a UR's servo loop."""
    tree = load_config("deploy", ["checkpoint=x", "robot=ur5e_simulated", f"robot.period={PERIOD}"])
    return modelled(parse(RobotConfig, tree["robot"]), folder)


class Kept:
    """Episodes in a file, row by row, each with its seed."""

    def __init__(self, file: Path | None, policy: Policy) -> None:
        """Read what is there; it must be of the same policy."""
        self._file, name = file, policy.fingerprint().hex()
        self.tree: dict[str, Any] = {"policy": name, "rows": {}}
        if file is not None and file.exists():
            self.tree = json.loads(file.read_text())
            if self.tree["policy"] != name:
                raise SystemExit(f"{file} is of a policy with other weights: name another file")

    def row(self, name: str) -> list[dict[str, Any]]:
        """Return the episodes of a row, by their seeds."""
        return sorted(self.tree["rows"].get(name, []), key=lambda one: int(one["seed"]))

    def missing(self, name: str, episodes: int) -> list[int]:
        """Return the seeds of the episodes that are not there yet."""
        known = {one["seed"] for one in self.row(name)}
        return [seed for seed in range(SEED, SEED + episodes) if seed not in known]

    def add(self, name: str, outcome: Outcome, **more: Any) -> None:
        """Write an episode."""
        told = {"seed": outcome.seed, "success": outcome.success, "length": outcome.length}
        self.tree["rows"].setdefault(name, []).append(told | more)
        if self._file is not None:
            write_json(self._file, self.tree)


def through_bridge(policy: Policy, kept: Kept, name: str, seeds: Sequence[int]) -> None:
    """Let a policy act over ur-rtde in the episodes of a row that are not there yet."""
    options = dict(BRIDGE[name])
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        robot = robot_of(Path(folder))
        rig, before = OnUR(robot), (0, 0)

        def ended(outcome: Outcome) -> None:
            nonlocal before
            goals, outside = rig.goals - before[0], rig.outside - before[1]
            before = rig.goals, rig.outside
            kept.add(name, outcome, events=dict(sorted(told.items())), goals=goals, outside=outside)
            told.clear()

        try:
            rehearse(
                policy,
                robot,
                policy.spec.env,
                seeds,
                rig=rig,
                report=lambda seed, event: told.update([event.code.name.lower()]),
                on_outcome=ended,
                **options,
            )
        finally:
            rig.close()


def judged(row: list[dict[str, Any]], beside: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is said of a row: its rate, and its difference from another one in the same episodes."""
    wins, lengths = ([one[key] for one in row] for key in ("success", "length"))
    events: Counter[str] = Counter()
    for one in row:
        events.update(one.get("events", {}))
    found: dict[str, Any] = {
        "episodes": len(row),
        "success_rate": sum(wins) / len(wins),
        "success_ci95": wilson(sum(wins), len(wins)),
        "length_mean": sum(lengths) / len(lengths),
        "lengths": lengths,
    }
    if events:
        found |= {"events": dict(sorted(events.items()))}
        found |= {"goals": sum(one["goals"] for one in row), "outside_limits": sum(one["outside"] for one in row)}
    other = {one["seed"]: one for one in beside}
    pairs = [(other[one["seed"]], one) for one in row if one["seed"] in other]
    if pairs:
        for key in ("success", "length"):
            found[f"{key}_difference"] = paired(
                *([float(one[key]) for one in side] for side in zip(*pairs, strict=True))
            )
        found["mcnemar_p"] = mcnemar(*([one["success"] for one in side] for side in zip(*pairs, strict=True)))
    return found


def successes(checkpoint: str, episodes: int, file: Path | None = None, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return, and print, success in process and through the bridge.

    Args:
        checkpoint: The policy.
        episodes: How many of each row.
        file: Where every episode is written as it ends; those that are there are not run again.
        names: The rows; none are all.
    """
    policy = load_policy(checkpoint)
    assert policy.spec.env is not None
    kept, rows = Kept(file, policy), dict[str, Any]()
    for name in [*IN_PROCESS, *BRIDGE]:
        seeds = kept.missing(name, episodes)
        if names and name not in names:
            continue
        if seeds and name in IN_PROCESS:
            with policy.spec.env.make(min(len(seeds), 16)) as env:
                for outcome in rollout(IN_PROCESS[name].build(policy), env, seeds):
                    kept.add(name, outcome)
        elif seeds:
            through_bridge(policy, kept, name, seeds)
        row = rows[name] = judged(kept.row(name), kept.row(BESIDE.get(name, "")))
        print(f"{name}: {row['success_rate']:.2f}, {row['length_mean']:.1f} steps", flush=True)
    return {"task": policy.spec.env.id, "episodes": episodes, "executed": policy.spec.n_action_steps, "rows": rows}


def engines(checkpoint: str, busy: Callable[[float], Any], episodes: int, plans: int = 200) -> dict[str, Any]:
    """Export a policy, which is refused if the artefact is not equal to it, time plans in situ, and let all act (T18).

    Args:
        checkpoint: The policy.
        busy: Keeps a servo loop going for so many seconds, meanwhile.
        episodes: How many each acts in, in process.
        plans: How many are timed, of each engine and of the policy itself.
    """
    policy = load_policy(checkpoint)
    assert policy.spec.env is not None
    with policy.spec.env.make(16) as env:
        recorded = histories(rolled_out(policy, env), policy)
    obs = {key: value[:1] for key, value in recorded.items()}
    step = 1 / policy.spec.control_hz
    found: dict[str, Any] = {
        "allowed_ms": step * policy.spec.n_action_steps / 2 * 1e3,
        "p99_ms": {},
        "success_rate": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        planners = {"eager": policy}
        for name in ("onnx", "openvino"):
            try:
                export(policy, name, Path(folder, name), recorded, "rolled out")
                planners[name] = load_policy(Path(folder, name))
            except RobopolError as error:
                found[name] = str(error)
        for name, planner in planners.items():
            took = []
            for k in range(plans + 5):
                busy(0.01)
                start = time.perf_counter()
                planner.plan(obs, 1, [torch.Generator().manual_seed(k)])
                took.append((time.perf_counter() - start) * 1e3)
            found["p99_ms"][name] = float(np.percentile(took[5:], 99))
            with policy.spec.env.make(min(episodes, 16)) as env:
                acted = rollout(RecedingHorizonConfig().build(planner), env, range(SEED, SEED + episodes))
                found["success_rate"][name] = float(np.mean([outcome.success for outcome in acted]))
    return found


def table(told: dict[str, Any]) -> list[str]:
    """Return the lines of docs/results.md."""
    lines = [
        f"A diffusion policy on {told['task']}, {told['episodes']} held-out episodes, {told['executed']} actions of a "
        "plan executed, in virtual time: in its simulator, and through servo loop, filter, ur-rtde and an emulated "
        "controller around the same scene. Late plans are executed as they come (naive), by the times that they were "
        "made for (matched), or made to go on from the last one besides (RTC). Differences are of the same episodes, "
        "with 95% intervals.",
        "",
        "| | success | steps | beside | success, difference | steps, difference | goals on the wire | outside limits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in told["rows"].items():
        low, high = row["success_ci95"]
        wire = f"{row['goals']} | {row['outside_limits']}" if "goals" in row else "- | -"
        rate = f"{row['success_rate']:.0%} ({low:.0%} to {high:.0%})"
        beside = "- | - | -"
        if "success_difference" in row:
            wins, steps = row["success_difference"], row["length_difference"]
            beside = f"{BESIDE[name]} | {wins[0]:+.0%} ({wins[1]:+.0%} to {wins[2]:+.0%}) | "
            beside += f"{steps[0]:+.1f} ({steps[1]:+.1f} to {steps[2]:+.1f})"
        lines.append(f"| {name} | {rate} | {row['length_mean']:.1f} | {beside} | {wire} |")
    return [*lines, ""]


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--kept", type=Path, required=True, help="where episodes are written")
    parser.add_argument("--rows", nargs="*", default=(), choices=[*IN_PROCESS, *BRIDGE])
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("\n".join(table(successes(args.checkpoint, args.episodes, args.kept, args.rows))))


if __name__ == "__main__":
    main()
