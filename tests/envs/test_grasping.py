"""The tasks with cubes: what counts as done, what the grip holds, and the experts' recoveries."""

import numpy as np
import pytest

from robopol.envs import make_env, make_expert
from robopol.envs.cube import AWAY, EDGE, HEIGHT_TOLERANCE, RELEASED_OPENING, YAW_RANGE, quarter
from robopol.envs.pick_place import GOAL_RADIUS, WALL_HEIGHT, PickPlace
from robopol.envs.stack import LEAST_DISTANCE, OFFSET_TOLERANCE, Stack

GRIP = 0.25  # an opening less than a cube's width
CUBES = ("red", "green")


def grasped(id, seed, **options):
    """Return an environment in which the expert has just lifted a cube, and the expert."""
    env, expert = make_env(id, **options).envs[0], make_expert(id, noise=0.0)
    env.reset(seed=seed)
    expert.reset(env, np.random.default_rng(seed))
    cube, _ = expert.job(env)
    while cube.position[2] < 0.08:
        env.step(expert.act(env))
    return env, expert, cube


def finish(env, expert):
    """Let the expert play to the end; return the info there."""
    while True:
        _, _, terminated, truncated, info = env.step(expert.act(env))
        if terminated or truncated:
            return info


def touching(env, name):
    geom = env.model.geom(name).id
    pairs = [contact.geom for contact in env.data.contact if geom in contact.geom]
    return {env.model.geom(g).name for pair in pairs for g in pair} - {name}


@pytest.mark.parametrize("angle", [0.0, 0.5, -0.7])
@pytest.mark.parametrize("face", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_yaw_is_that_of_the_sides_on_every_face(angle, face):
    env = PickPlace()
    env.reset(seed=0)
    # A quarter turn about one of the cube's own axes first.
    turn = np.array([np.cos(np.pi / 4), *(np.sin(np.pi / 4) * np.array(face))])
    yaw = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
    joint = env.model.joint("cube").qposadr[0]
    w, v = yaw[0] * turn[0] - yaw[1:] @ turn[1:], yaw[0] * turn[1:] + turn[0] * yaw[1:] + np.cross(yaw[1:], turn[1:])
    env.data.qpos[joint + 3 : joint + 7] = w, *v
    env.restore_state(env.save_state())
    assert env.cube.yaw == pytest.approx(angle, abs=1e-9)


def test_a_quarter_turn_changes_no_yaw():
    for angle in np.linspace(-7, 7, 99):
        assert -np.pi / 4 <= quarter(angle) < np.pi / 4
        turns = (angle - quarter(angle)) / (np.pi / 2)
        assert turns == pytest.approx(round(turns), abs=1e-9)


@pytest.mark.parametrize("mass", [1.0, 3.0])
def test_the_grip_does_not_slip(mass):
    env, _, cube = grasped("robopol/PickPlace-v0", 0, domain={"mass": mass, "friction": 0.5})
    offsets = []
    for _ in range(30):
        env.step(env.control.action_for(env.commanded_pose(), GRIP))
        offsets.append(cube.position - env.tool_pose()[:3])
    np.testing.assert_allclose(offsets[-1], offsets[9], atol=1e-3)  # over 2 s, at rest
    # The fingers press, yet hardly sink in.
    assert EDGE - 0.001 < env.opening() * 0.085 < EDGE
    assert touching(env, "cube") == {"finger_left", "finger_right"}


def test_a_cube_let_go_falls():
    env, _, cube = grasped("robopol/PickPlace-v0", 0)
    for _ in range(8):
        env.step(env.control.action_for(env.commanded_pose(), 1.0))
    assert cube.lies_at(EDGE / 2)


@pytest.mark.parametrize("id", ["robopol/PickPlace-v0", "robopol/Stack-v0"])
def test_expert_grasps_a_lost_cube_anew(id):
    env, expert, cube = grasped(id, 4)
    for _ in range(4):  # drop it on the way
        pose, _ = expert.plan(env)
        env.step(env.control.action_for(pose, 1.0))
    assert cube.position[2] < 0.05
    info = finish(env, expert)
    assert info["success"]
    assert info["way"] == expert.way


@pytest.mark.parametrize("task", [PickPlace, Stack])
def test_episodes_start_clear_and_still(task):
    env = task()
    for seed in range(200):
        env.reset(seed=seed)
        for cube in env.cubes if task is Stack else (env.cube,):
            assert cube.lies_at(EDGE / 2)
            assert abs(cube.yaw) <= YAW_RANGE + 1e-9
        if task is Stack:
            assert touching(env, "red") | touching(env, "green") <= {"table"}
            red, green = (cube.position for cube in env.cubes)
            assert np.linalg.norm(red - green) >= LEAST_DISTANCE
        else:
            assert touching(env, "cube") <= {"table"}
            assert np.linalg.norm(env.goal - env.cube.position) >= 0.12
            assert env.cube.position[1] < 0 < env.goal[1]


def test_pick_place_the_wall_stops_a_push():
    env = PickPlace()
    for seed in range(3):
        env.reset(seed=seed)
        aim = env.cube.position + np.array([0.0, -0.08, -0.005])
        for _ in range(15):  # down behind the cube, then across the wall's line
            env.step(env.control.action_for(np.append(aim, 0.0), 0.0))
        env.put("cube", aim + np.array([0.0, 0.06, 0.005]), 0.0)
        for _ in range(25):
            aim = env.commanded_pose() + np.array([0.0, 0.02, 0.0, 0.0])
            env.step(env.control.action_for(aim, 0.0))
        assert env.cube.position[1] < 0
        assert env.cube.position[2] < WALL_HEIGHT


def released(env, above, opening=0.9):
    """Reset an environment whose start is such that the open gripper is above a point."""
    q, _ = env.control.kinematics.inverse(np.array([*above, 0.0]), env.data.qpos[:6])
    env.data.qpos[:6], env.data.qpos[6:8] = q, opening * 0.0425
    env.control.reset(q, opening)
    env._servo[:6], env._servo[6] = q, opening * 0.085
    env.data.qvel[:] = 0


@pytest.mark.parametrize(
    ("change", "success"),
    [
        ({}, True),
        ({"beside": GOAL_RADIUS - 0.002}, True),
        ({"beside": GOAL_RADIUS + 0.002}, False),
        ({"above": 0.06, "away": 0.15}, False),  # still falls
        ({"opening": RELEASED_OPENING - 0.1}, False),
        ({"away": AWAY - 0.01}, False),
        ({"beside": -0.025, "speed": 0.6}, False),  # still slides
    ],
)
def test_pick_place_success_is_a_cube_left_on_the_mark(change, success):
    env = PickPlace()
    env.reset(seed=0)
    cube = env.goal + np.array([change.get("beside", 0.0), 0.0, change.get("above", 0.0)])
    env.put("cube", cube, 0.3)
    released(env, env.goal + np.array([0, 0, change.get("away", AWAY + 0.01)]), change.get("opening", 0.9))
    env.data.qvel[env.model.joint("cube").dofadr[0]] = change.get("speed", 0.0)
    _, _, terminated, _, info = env.step(env.control.hold())
    assert terminated is success
    assert info["success"] is success
    if "speed" in change:
        assert np.linalg.norm(env.cube.position - env.goal) < GOAL_RADIUS


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize(
    ("offset", "away", "success"),
    [
        (0.0, AWAY + 0.01, True),
        (OFFSET_TOLERANCE - 0.002, AWAY + 0.01, True),
        (OFFSET_TOLERANCE + 0.002, AWAY + 0.01, False),
        (0.0, AWAY - 0.01, False),
    ],
)
def test_stack_success_is_a_cube_left_on_the_other(upper, offset, away, success):
    env = Stack()
    env.reset(seed=0)
    place = env.cubes[1 - upper].position + np.array([offset, 0.0, EDGE])
    env.put(CUBES[upper], place, 0.2)
    released(env, place + np.array([0, 0, away]))
    _, _, terminated, _, info = env.step(env.control.hold())
    assert terminated is success
    assert info == {"success": success, "way": upper}


def test_stack_way_is_the_cube_lifted_last():
    env = Stack()
    env.reset(seed=0)
    for cube in (0, 1, 1, 0):
        place = env.cubes[cube].position
        env.put(CUBES[cube], place + np.array([0.0, 0.0, 0.15]), 0.0)
        ways = [env.step(env.control.hold())[4]["way"] for _ in range(6)]
        assert ways == [cube] * 6
        assert env.cubes[cube].position[2] < EDGE  # it fell, and the way stayed


def test_stack_mean_of_the_two_ways_fails():
    env = Stack()
    env.reset(seed=0)
    experts = [make_expert(env.id, way=way, noise=0.0) for way in env.way_names]
    for expert in experts:
        expert.reset(env, np.random.default_rng(0))
    done = False
    while not done:
        _, _, terminated, truncated, info = env.step(sum(expert.act(env) for expert in experts) / 2)
        done = terminated or truncated
    assert info == {"success": False, "way": -1}


def test_a_cube_lies_only_at_its_height():
    env = PickPlace()
    env.reset(seed=0)
    height = env.cube.position[2]
    assert env.cube.lies_at(height + HEIGHT_TOLERANCE - 1e-4)
    assert not env.cube.lies_at(height + HEIGHT_TOLERANCE + 1e-4)
