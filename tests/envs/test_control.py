"""Actions move the commanded reference as the action spaces say."""

import numpy as np
import pytest

from robopol.envs.control import CONTROLS, TOOL_SPEED, WORKSPACE_HIGH, WORKSPACE_LOW
from robopol.envs.kinematics import HOME, ToolKinematics
from robopol.envs.reach import Reach
from robopol.envs.ur5e import POSITION_LIMIT, SPEED_LIMIT

KINDS = sorted(CONTROLS)


def control(kind):
    made = CONTROLS[kind](ToolKinematics(), 0.1)
    start, _ = made.kinematics.inverse(np.array([0.45, 0.02, 0.2, 0.1]), HOME)
    made.reset(start, 0.5)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_hold_leaves_the_reference(kind):
    made = control(kind)
    start = made.q.copy()
    made.command(made.hold())
    np.testing.assert_allclose(made.q, start, atol=1e-5)
    assert made.opening[0] == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_action_for_a_near_pose_arrives(kind):
    made = control(kind)
    pose = made.commanded_pose() + np.array([0.02, -0.015, 0.01, 0.1])
    action = made.action_for(pose, 0.6)
    assert action.dtype == np.float32
    assert np.all((action >= made.low) & (action <= made.high))
    made.command(action)
    np.testing.assert_allclose(made.kinematics.pose(made.q), pose, atol=1e-5)
    assert made.opening[0] == pytest.approx(0.6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_far_pose_is_approached_within_the_limits(kind):
    made = control(kind)
    pose = np.array([0.65, 0.25, 0.1, -1.0])
    for _ in range(40):
        before = made.q.copy()
        made.command(made.action_for(pose, 1.0))
        assert np.abs(made.q - before).max() <= SPEED_LIMIT * 0.1 + 1e-9
    np.testing.assert_allclose(made.kinematics.pose(made.q), pose, atol=1e-5)
    assert made.opening[0] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_are_real_limits(kind):
    made = control(kind)
    rng = np.random.default_rng(0)
    for scale in (1.0, 1e6):
        for _ in range(30):
            made.command(rng.uniform(-scale, scale, len(made.low)))
            assert np.all(np.abs(made.q) <= POSITION_LIMIT)
            assert 0 <= made.opening[0] <= 1
    if kind.startswith("ee"):
        assert np.all((made.pose >= WORKSPACE_LOW) & (made.pose <= WORKSPACE_HIGH))


def test_deltas_add_up_on_the_reference():
    made = control("ee_delta")
    start = made.commanded_pose()
    for _ in range(4):
        made.command(np.array([0.01, -0.005, 0.002, 0.02, 0.5]))
    np.testing.assert_allclose(made.commanded_pose(), start + np.array([0.04, -0.02, 0.008, 0.08]), atol=1e-9)
    made.command(np.array([9.0, 0.0, 0.0, 0.0, 0.5]))
    assert made.commanded_pose()[0] == pytest.approx(start[0] + 0.04 + TOOL_SPEED * 0.1)


@pytest.mark.parametrize("hz", [5, 10, 25])
def test_the_arm_follows_its_reference_at_any_control_rate(hz):
    env = Reach(control_hz=hz)
    env.reset(seed=0)
    start = env.commanded_pose()
    for _ in range(hz // 2):
        env.step(np.array([0.1 / hz, 0.1 / hz, -0.06 / hz, 0.0, 0.5]))
    for _ in range(hz):
        env.step(env.control.hold())
    moved = hz // 2 / hz
    np.testing.assert_allclose(env.tool_pose(), start + moved * np.array([0.1, 0.1, -0.06, 0.0]), atol=1.5e-3)
