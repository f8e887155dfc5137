"""Nothing unfiltered reaches an arm: one place writes, and it looks for itself."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lockstep import robot

import robopol.real_robot
from robopol.real_robot.driver import StopLevel
from robopol.real_robot.emulators.oracle import Oracle
from robopol.real_robot.outlet import CommandRefused, Outlet

ROOM = Path(robopol.real_robot.__file__).parent
LOOP = ("servo", "lifecycle", "motion", "filter", "outlet", "rings", "servo_process", "supervisor")


class Written(list):
    def __init__(self):
        self.stops = []

    def write(self, q, gripper):
        self.append((q, gripper))

    def stop(self, level):
        self.stops.append(level)


def outlet(start=0.0):
    written = Written()
    made = Outlet(written, robot(period=0.01))
    made.reset(np.full(5, start))
    return made, written


@pytest.mark.parametrize(
    ("joint", "value"),
    [(0, np.nan), (4, np.inf), (1, -np.inf), (2, 1e6), (3, 0.0016), (3, -0.0016), (0, 1.9)],  # 15 rad/s^2 in 10 ms
)
def test_what_is_not_within_the_limits_is_not_written(joint, value):
    made, written = outlet()
    q = np.zeros(5)
    q[joint] = value
    with pytest.raises(CommandRefused) as caught:
        made.write(q, 0.5)
    assert caught.value.numbers[0] == joint
    assert not written
    made.write(np.zeros(5), 0.5)
    assert len(written) == 1


@pytest.mark.parametrize("opening", [-0.01, 1.01, np.inf])
def test_an_opening_out_of_range_is_not_written(opening):
    made, written = outlet()
    with pytest.raises(CommandRefused):
        made.write(np.zeros(5), opening)
    assert not written


def test_speed_is_limited_too():
    made, written = outlet(-1.5)
    speed = 15.0 * 0.01 * np.arange(1, 22)  # 3 rad/s are reached after 20 ticks
    way = -1.5 + np.cumsum(speed) * 0.01
    for q in way[:20]:
        made.write(np.full(5, q), 0.5)
    with pytest.raises(CommandRefused):
        made.write(np.full(5, way[20]), 0.5)
    assert len(written) == 20


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_it_and_the_witness_at_the_wire_judge_alike(seed):
    """Two rules that share no code: what is written is no violation, and what is refused would have been one."""
    rng, config = np.random.default_rng(seed), robot(period=0.01)
    written = Written()
    made, q, v = Outlet(written, config), rng.uniform(-1.5, 1.5, 5), np.zeros(5)
    made.reset(q)
    goals = [q]
    for _ in range(40):
        v = v + rng.uniform(-1.02, 1.02, 5) * 0.15 * rng.choice([0.1, 1.0])
        goals.append(goals[-1] + v * 0.01)
    for k, goal in enumerate(goals):
        oracle = Oracle.of(config)
        for t, past in enumerate([*goals[max(0, k - 2) : k], goal] if k else [goal]):
            for joint in range(5):
                oracle.goal(t * 10_000_000, joint, float(past[joint]), (past[joint], past[joint]))
        last = [words for words in oracle.violations if words.startswith(f"{min(k, 2) * 0.01:.6f} s")]
        try:
            made.write(goal, 0.5)
        except CommandRefused:
            assert last or np.isnan(goal).any()
            break
        assert not last


def test_before_it_is_told_where_the_arm_is_nothing_is_written():
    written = Written()
    with pytest.raises(CommandRefused):
        Outlet(written, robot()).write(np.zeros(5), 0.0)
    assert not written


def test_from_outside_the_limits_the_arm_may_come_in_only():
    made, written = outlet(2.0)
    made.write(np.full(5, 1.9995), 0.0)
    with pytest.raises(CommandRefused):
        made.write(np.full(5, 1.9997), 0.0)
    assert len(written) == 1


@pytest.mark.parametrize("verb", ["write", "stop"])
def test_only_the_outlet_tells_a_driver_to_move_or_to_stop(verb):
    for path in ROOM.glob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and node.attr == verb and "driver" in ast.unparse(node.value).lower()
        ]
        assert len(calls) == (path.name == "outlet.py"), path


def test_after_a_stop_elsewhere_nothing_is_written_until_it_is_told_where_the_arm_is():
    made, written = outlet()
    made.stop(StopLevel.REST)
    made.write(np.zeros(5), 0.5)
    made.stop(StopLevel.STOP)
    with pytest.raises(CommandRefused):
        made.write(np.zeros(5), 0.5)
    made.reset(np.full(5, 0.1))
    made.write(np.full(5, 0.1), 0.5)
    assert len(written) == 2
    assert written.stops == [StopLevel.REST, StopLevel.STOP]


def test_the_servo_process_imports_no_torch():
    known = [name for name in LOOP if (ROOM / f"{name}.py").exists()]
    code = "".join(f"import robopol.real_robot.{name}; " for name in known)
    code += "import robopol.real_robot.drivers.simulated, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
