"""Nothing unfiltered reaches an arm: one place writes, and it looks for itself."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lockstep import robot

import robopol.real_robot
from robopol.real_robot.outlet import CommandRefused, Outlet

ROOM = Path(robopol.real_robot.__file__).parent
LOOP = ("servo", "lifecycle", "motion", "filter", "outlet", "rings", "servo_process", "supervisor")


class Written(list):
    def write(self, q, gripper):
        self.append((q, gripper))


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


def test_only_the_outlet_calls_a_drivers_write():
    for path in ROOM.glob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and node.attr == "write" and "driver" in ast.unparse(node.value).lower()
        ]
        assert len(calls) == (path.name == "outlet.py"), path


def test_the_servo_process_imports_no_torch():
    known = [name for name in LOOP if (ROOM / f"{name}.py").exists()]
    code = "".join(f"import robopol.real_robot.{name}; " for name in known)
    code += "import robopol.real_robot.drivers.simulated, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
