"""A policy through the whole bridge: vendor's client, emulated controller, late plans (T17); used by bridge.py.

Every row is the same policy in the same episodes. ``in process``: the simulator that it was trained in, with the
executors of docs/execution.md. The other rows: servo loop, filter, the driver `ur`, the unmodified ur-rtde, an emulated
controller that holds the same scene, in lock-step, so how busy the machine is does not matter. Late plans are executed
as they come (naive), by the times that they were made for (matched), or made to go on from the last plan besides
(RTC: ``merging=continue``, and the policy steered by `real_time_chunking`, told d with every plan).
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopol.config import parse
from robopol.configs import load_config
from robopol.errors import RobopolError
from robopol.evaluation import rollout
from robopol.evaluation.statistics import wilson
from robopol.execution import ExecutorConfig, RealTimeChunkingConfig, RecedingHorizonConfig
from robopol.export.export import export, histories, rolled_out
from robopol.files import write_json
from robopol.loading import load_policy
from robopol.policies import Policy
from robopol.real_robot.merging import ContinueConfig
from robopol.real_robot.placing import modelled
from robopol.real_robot.rehearsal import rehearse
from robopol.real_robot.rigs import OnUR
from robopol.real_robot.robot import RobotConfig
from robopol.steering import RealTimeChunkingConfig as Pulled

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
    "bridge, 100 ms late, RTC": {"latency": 0.1, "rtc": True},
    "bridge, 200 ms late, matched": {"latency": 0.2},
    "bridge, 200 ms late, RTC": {"latency": 0.2, "rtc": True},
    "bridge, 200 ms late, naive": {"latency": 0.2, "matched": False},
}


def robot_of(folder: Path) -> RobotConfig:
    """Return the arm suite's UR5e, at the rate of a UR's servo loop."""
    tree = load_config("deploy", ["checkpoint=x", "robot=ur5e_simulated", f"robot.period={PERIOD}"])
    return modelled(parse(RobotConfig, tree["robot"]), folder)


def judged(wins: list[bool], lengths: list[int]) -> dict[str, Any]:
    """Return what is kept of some episodes."""
    rate, interval = sum(wins) / len(wins), wilson(sum(wins), len(wins))
    return {
        "episodes": len(wins),
        "success_rate": rate,
        "success_ci95": interval,
        "length_mean": sum(lengths) / len(lengths),
    }


def through_bridge(policy: Policy, episodes: int, rtc: bool = False, **options: Any) -> dict[str, Any]:
    """Let a policy act over ur-rtde."""
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        robot = robot_of(Path(folder))
        if rtc:
            policy = policy.steered(Pulled())
            robot = robot.model_copy(update={"merging": ContinueConfig()})
        rig = OnUR(robot)
        try:
            outcomes = rehearse(
                policy,
                robot,
                policy.spec.env,
                range(SEED, SEED + episodes),
                rig=rig,
                report=lambda seed, event: told.update([event.code.name.lower()]),
                **options,
            )
        finally:
            rig.close()
    found = judged([outcome.success for outcome in outcomes], [outcome.length for outcome in outcomes])
    return found | {"events": dict(sorted(told.items())), "goals": rig.goals, "outside_limits": rig.outside}


def successes(checkpoint: str, episodes: int, kept: Path | None = None) -> dict[str, Any]:
    """Return, and print, success in process and through the bridge; ``kept`` is written after every row."""
    policy = load_policy(checkpoint)
    assert policy.spec.env is not None
    rows: dict[str, Any] = {}
    found = {"task": policy.spec.env.id, "episodes": episodes, "executed": policy.spec.n_action_steps, "rows": rows}
    with policy.spec.env.make(min(episodes, 16)) as env:
        for name, execution in IN_PROCESS.items():
            outcomes = rollout(execution.build(policy), env, range(SEED, SEED + episodes))
            rows[name] = judged([outcome.success for outcome in outcomes], [outcome.length for outcome in outcomes])
            print(f"{name}: {rows[name]['success_rate']:.2f}", flush=True)
    for name, options in BRIDGE.items():
        rows[name] = through_bridge(policy, episodes, **options)
        print(f"{name}: {rows[name]['success_rate']:.2f}, {rows[name]['outside_limits']} goals outside", flush=True)
        if kept is not None:
            write_json(kept, found)
    return found


def engines(checkpoint: str, busy: Callable[[float], Any], plans: int = 200) -> dict[str, Any]:
    """Export a policy, which is refused if the artefact is not equal to it, and time plans in situ (T18).

    Args:
        checkpoint: The policy.
        busy: Keeps a servo loop going for so many seconds, meanwhile.
        plans: How many are timed, of each engine and of the policy itself.
    """
    policy = load_policy(checkpoint)
    assert policy.spec.env is not None
    with policy.spec.env.make(16) as env:
        recorded = histories(rolled_out(policy, env), policy)
    obs = {key: value[:1] for key, value in recorded.items()}
    step = 1 / policy.spec.control_hz
    found: dict[str, Any] = {"allowed_ms": step * policy.spec.n_action_steps / 2 * 1e3, "p99_ms": {}}
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
    return found


def table(told: dict[str, Any]) -> list[str]:
    """Return the lines of docs/results.md."""
    lines = [
        f"A diffusion policy on {told['task']}, {told['episodes']} held-out episodes, {told['executed']} actions of a "
        "plan executed, in virtual time: in its simulator, and through servo loop, filter, ur-rtde and an emulated "
        "controller around the same scene. Late plans are executed as they come (naive), by the times that they were "
        "made for (matched), or made to go on from the last one besides (RTC).",
        "",
        "| | success | steps | goals on the wire | outside limits |",
        "|---|---|---|---|---|",
    ]
    for name, row in told["rows"].items():
        low, high = row["success_ci95"]
        wire = f"{row['goals']} | {row['outside_limits']}" if "goals" in row else "- | -"
        rate = f"{row['success_rate']:.0%} ({low:.0%} to {high:.0%})"
        lines.append(f"| {name} | {rate} | {row['length_mean']:.1f} | {wire} |")
    return [*lines, ""]
