"""Push-T: the measure of coverage, the task's rules, and the expert's model of the block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopol.envs import make_expert
from robopol.envs.experts.push_t import _CONTACTS, foresee
from robopol.envs.push_t import (
    BAR,
    STEM,
    SUCCESS_COVERAGE,
    WIDTH,
    PushT,
    clipped_area,
    coverage,
    distance,
    to_frame,
)

CELL = 5e-4
GRID = np.stack(np.meshgrid(*[np.arange(-0.12, 0.12, CELL) + CELL / 2] * 2), axis=-1).reshape(-1, 2)
poses = st.tuples(*[st.floats(-0.08, 0.08)] * 2, st.floats(-np.pi, np.pi)).map(np.array)


@pytest.fixture(scope="module")
def env():
    return PushT()


def inside(points):
    """Whether points in the block's frame are in the block."""
    return np.logical_or(*(((points >= part[:2]) & (points <= part[2:])).all(axis=1) for part in (BAR, STEM)))


def turned(points, pose):
    """Points of the block's frame in the world."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    return points @ np.array([[cos, sin], [-sin, cos]]) + pose[:2]


def put(env, block):
    """Put the block somewhere at rest."""
    joint = env.model.joint("block").qposadr[0]
    env.data.qpos[joint : joint + 2] = block[:2]
    env.data.qpos[joint + 3 : joint + 7] = np.cos(block[2] / 2), 0, 0, np.sin(block[2] / 2)


@given(poses)
def test_coverage_is_the_area_that_a_grid_counts(block):
    mark = GRID[inside(GRID)]
    back = turned(mark - block[:2], np.array([0.0, 0.0, -block[2]]))
    assert coverage(block, np.zeros(3)) == pytest.approx(inside(back).mean(), abs=0.01)


@given(poses, poses, poses)
def test_coverage_depends_on_the_difference_of_the_poses_only(block, goal, frame):
    moved = [np.append(turned(pose[:2], frame), pose[2] + frame[2]) for pose in (block, goal)]
    assert coverage(*moved) == pytest.approx(coverage(block, goal), abs=1e-9)
    assert coverage(goal, block) == pytest.approx(coverage(block, goal), abs=1e-9)


def test_coverage_is_exact_where_it_is_known_by_hand():
    goal = np.array([0.4, 0.1, 0.7])
    assert coverage(goal, goal) == pytest.approx(1.0)
    assert coverage(goal + np.array([0.0, 0.0, 2 * np.pi]), goal) == pytest.approx(1.0)
    assert coverage(goal + np.array([1.0, 0.0, 0.0]), goal) == 0.0
    # Along either axis, a T of 7 squares that moves by a quarter of a square loses 4 quarters.
    for shift in ([WIDTH / 4, 0.0, 0.0], [0.0, WIDTH / 4, 0.0]):
        assert coverage(np.array(shift), np.zeros(3)) == pytest.approx(6 / 7)


def test_clipping_knows_its_special_cases():
    window = (0.0, 0.0, 2.0, 1.0)
    assert clipped_area([(-1, -1), (3, -1), (3, 2), (-1, 2)], window) == pytest.approx(2.0)
    assert clipped_area([(0.5, 0.5), (1, 0.5), (1, 0.75)], window) == pytest.approx(0.0625)
    assert clipped_area([(0, 1), (2, 1), (2, 2), (0, 2)], window) == 0.0
    assert clipped_area([(1, -1), (2.5, 0.5), (1, 2), (-0.5, 0.5)], window) == pytest.approx(2.0)
    assert clipped_area([(0, 0), (1, 1), (0, 2), (-1, 1)], window) == pytest.approx(0.5)


@given(poses, poses)
def test_distance_is_the_root_mean_square_over_the_points(first, second):
    points = GRID[inside(GRID)]
    moved = turned(points, first) - turned(points, second)
    assert distance(first, second) == pytest.approx(np.sqrt((moved**2).sum(axis=1).mean()), abs=3e-4)


def test_starts_have_work_to_do_and_the_fingers_clear_of_the_block(env):
    block = env.model.body("block").id
    spread = []
    for seed in range(100):
        env.reset(seed=seed)
        assert coverage(env.block, env.goal) <= 0.6
        touching = {int(env.model.geom_bodyid[g]) for c in env.data.contact for g in c.geom}
        assert touching <= {0, block}
        spread.append(env.block - env.goal)
    assert (np.abs(spread) <= [0.06, 0.06, np.pi / 4]).all()
    assert (np.abs(spread).max(axis=0) > [0.05, 0.05, 0.7]).all()


def test_state_is_the_poses(env):
    observation, _ = env.reset(seed=3)
    block, goal = env.block, env.goal
    expected = [*block[:2], np.sin(block[2]), np.cos(block[2]), *goal[:2], np.sin(goal[2]), np.cos(goal[2])]
    np.testing.assert_allclose(observation["state"][11:], expected, atol=1e-6)


@pytest.mark.parametrize(("shift", "success"), [(0.18, False), (0.17, True)])
def test_success_is_enough_coverage(env, shift, success):
    env.reset(seed=0)
    # A shift by s widths along an axis uncovers 4 s of 7 squares: 0.9 is covered up to s = 0.175.
    direction = np.array([np.cos(env.goal[2]), np.sin(env.goal[2]), 0.0])
    put(env, env.goal + shift * WIDTH * direction)
    _, reward, terminated, _, info = env.step(env.control.hold())
    assert terminated is info["success"] is success
    # The rewards of an episode sum to 1 and the bonus.
    assert reward == pytest.approx(2.0) if success else 0.9 < reward < 1.0


def test_reward_is_the_progress_of_the_coverage(env):
    env.reset(seed=0)
    start = coverage(env.block, env.goal)
    rewards = []
    for shift in (0.05, 0.3, 0.02):
        put(env, env.goal + np.array([0.0, shift, 0.0]))
        rewards.append(env.step(env.control.hold())[1])
        reached = coverage(env.block, env.goal)
        assert sum(rewards) == pytest.approx((reached - start) / (SUCCESS_COVERAGE - start))
    assert rewards[1] < 0 < rewards[2]


@pytest.mark.parametrize(("side", "way"), [(1, 0), (-1, 1)])
def test_way_is_the_side_from_which_the_block_is_first_moved(env, side, way):
    env.reset(seed=0)
    assert env.step(env.control.hold())[4]["way"] == -1
    tool = env.tool_pose()[:2]
    yaw = env.block[2]
    for sign, step in ((side, 0.0), (-side, 0.01)):
        # Whatever happens after the first motion, the way stays.
        put(env, np.append(tool - sign * 0.15 * np.array([-np.sin(yaw), np.cos(yaw)]), yaw) + step)
        assert env.step(env.control.hold())[4]["way"] == way


def test_model_foresees_a_push_off_the_centre(env):
    """Straight pushes beside the middle of the bar: the simulator's block goes about where the model says."""
    env.reset(seed=0)
    for index in np.flatnonzero((_CONTACTS.normal @ [1, 0] > 0.9) & (np.abs(_CONTACTS.along) > 1.3 * WIDTH))[::3]:
        env.reset(seed=0)
        block = np.array([0.45, 0.0, 0.3])
        put(env, block)
        contact = _CONTACTS.pick(int(index))
        place, before = (turned(contact.tool(-block[2], gap)[0], block) for gap in (0.0, 0.001))
        q, _ = env.control.kinematics.inverse(np.array([*before, 0.012, 0.0]), env.data.qpos[:6].copy())
        env.data.qpos[:6] = q
        env.control.reset(q, 0.0)
        env._servo[:6] = q
        inward = turned(-contact.normal[0], np.array([0.0, 0.0, block[2]]))
        for travel in (0.007, 0.014, 0.02):
            pose = np.append(place + travel * inward, [0.012, 0.0])
            env.step(env.control.action_for(pose, 0.0))
        ahead = foresee(block, env.block, contact, -block[2])[0]
        # The middle angle is straight, and 10 pieces of 2 mm are 20 mm.
        assert ahead[2].min() < distance(block, env.block) / 3
        assert 7 <= ahead[2].argmin() + 1 <= 12


@pytest.mark.parametrize("options", [{}, {"domain": {"mass": [0.5, 2.0], "friction": [0.6, 1.4]}}])
def test_expert_succeeds_from_both_sides(options):
    env = PushT(**options)
    lengths = []
    for seed in range(100, 108):
        for way, name in enumerate(env.way_names):
            expert = make_expert(env.id, way=name)
            env.reset(seed=seed)
            expert.reset(env, np.random.default_rng(seed))
            length, done = 0, False
            while not done:
                *_, terminated, truncated, info = env.step(expert.act(env))
                length, done = length + 1, terminated or truncated
            assert info == {"success": True, "way": way}
            lengths.append(length)
    assert np.mean(lengths) < 70


def test_frame_is_the_inverse_of_a_turn():
    pose = np.array([0.3, -0.1, 1.2])
    np.testing.assert_allclose(to_frame(turned(np.array([0.02, 0.05]), pose), pose), [0.02, 0.05])
