"""The arm's model is the published UR5e, and its kinematics invert."""

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol.envs import ur5e
from robopol.envs.control import WORKSPACE_HIGH, WORKSPACE_LOW
from robopol.envs.gripper import STROKE, TOOL_OFFSET
from robopol.envs.kinematics import HOME, ToolKinematics
from robopol.envs.scene import scene_mjcf

MOUNT = np.diag([-1.0, -1.0, 1.0])  # the base frame turned by half a revolution


@pytest.fixture(scope="module")
def arm():
    model = mujoco.MjModel.from_xml_string(scene_mjcf("arm", ""))
    return model, mujoco.MjData(model)


def test_flange_follows_the_dh_chain(arm):
    model, data = arm
    flange = model.site("flange").id
    rng = np.random.default_rng(0)
    for _ in range(100):
        q = rng.uniform(-1, 1, 6) * ur5e.POSITION_LIMIT
        data.qpos[:6] = q
        mujoco.mj_kinematics(model, data)
        pose = ur5e.dh_flange(q)
        np.testing.assert_allclose(data.site_xpos[flange], MOUNT @ pose[:3, 3], atol=1e-6)
        np.testing.assert_allclose(data.site_xmat[flange].reshape(3, 3), MOUNT @ pose[:3, :3], atol=1e-6)


def test_dh_chain_at_zero_reaches_the_published_distance():
    # At q = 0 the arm lies along -x of its base, the tool pointing to -y: sums of the table's lengths.
    position = ur5e.dh_flange(np.zeros(6))[:3, 3]
    np.testing.assert_allclose(position, [-0.425 - 0.3922, -0.1333 - 0.0996, 0.1625 - 0.0997], atol=1e-12)


def test_masses_and_centres_of_mass(arm):
    model, data = arm
    data.qpos[:] = 0
    mujoco.mj_kinematics(model, data)
    pose = np.eye(4)
    for i in range(6):
        body = model.body(f"link_{i + 1}")
        assert body.mass[0] == pytest.approx(ur5e.LINK_MASS[i])
        ca, sa = np.cos(ur5e.DH_ALPHA[i]), np.sin(ur5e.DH_ALPHA[i])
        step = [[1, 0, 0, ur5e.DH_A[i]], [0, ca, -sa, 0], [0, sa, ca, ur5e.DH_D[i]], [0, 0, 0, 1]]
        pose = pose @ np.array(step)
        com = pose[:3, :3] @ ur5e.LINK_COM[i] + pose[:3, 3]
        np.testing.assert_allclose(data.xipos[body.id], MOUNT @ com, atol=1e-9)


def test_limits(arm):
    model, _ = arm
    for name, position, effort in zip(ur5e.JOINT_NAMES, ur5e.POSITION_LIMIT, ur5e.EFFORT_LIMIT, strict=True):
        np.testing.assert_allclose(model.joint(name).range, [-position, position])
        np.testing.assert_allclose(model.actuator(name).forcerange, [-effort, effort])


def test_gravity_is_compensated(arm):
    model, data = arm
    mujoco.mj_resetData(model, data)
    data.qpos[:6] = HOME
    data.ctrl[:6] = HOME
    mujoco.mj_step(model, data, 400)
    np.testing.assert_allclose(data.qpos[:6], HOME, atol=1e-4)


def test_tool_is_between_the_fingertips(arm):
    model, data = arm
    data.qpos[6:8] = STROKE / 2
    mujoco.mj_kinematics(model, data)
    left, right = (data.geom(f"finger_{side}") for side in ("left", "right"))
    height = model.geom("finger_left").size[2]
    axis = data.site("tool").xmat.reshape(3, 3)
    middle = (left.xpos + right.xpos) / 2 + height * axis[:, 2]
    np.testing.assert_allclose(middle, data.site("tool").xpos, atol=1e-9)
    offset = data.site("tool").xpos - data.site("flange").xpos
    assert np.linalg.norm(offset) == pytest.approx(TOOL_OFFSET)
    gap = np.linalg.norm(left.xpos - right.xpos) - 2 * model.geom("finger_left").size[1]
    assert gap == pytest.approx(STROKE)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_inverse_reaches_the_whole_workspace(fractions):
    kinematics = ToolKinematics()
    pose = WORKSPACE_LOW + np.array(fractions) * (WORKSPACE_HIGH - WORKSPACE_LOW)
    q, error = kinematics.inverse(pose, HOME)
    assert error < 1e-6
    np.testing.assert_allclose(kinematics.pose(q), pose, atol=2e-6)
    assert kinematics.forward(q)[1][2, 2] == pytest.approx(-1.0, abs=1e-9)


def test_inverse_out_of_reach_says_how_far():
    q, error = ToolKinematics().inverse(np.array([1.5, 0.0, 0.2, 0.0]), HOME)
    assert error > 0.3
    assert np.all(np.abs(q) <= ur5e.POSITION_LIMIT)
