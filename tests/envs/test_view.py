"""A task says the same of one world and of many at once, in numpy and in torch; so do the controls."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from robopol.envs import make_env, make_expert
from robopol.envs.arrays import length
from robopol.envs.control import CONTROLS
from robopol.envs.kinematics import HOME, ToolKinematics
from robopol.envs.make import TASKS
from robopol.envs.push_t import BAR, STEM, clipped_area, coverage
from robopol.envs.rectangles import overlap
from robopol.envs.view import View

KINDS = {"numpy": np.array, "torch": lambda x: torch.tensor(np.array(x), dtype=torch.float64)}
FIELDS = ("qpos", "qvel", "xpos", "xquat", "xmat", "site_xpos", "site_xmat")


def played(id, seed, steps):
    """Return a task after some steps of its expert, and what it saw before the last of them."""
    task, expert = make_env(id, backend="serial").envs[0], make_expert(id, way=None)
    task.reset(seed=seed)
    expert.reset(task, np.random.default_rng(seed))
    for _ in range(steps):
        memory, episode = task.memory.copy(), task._episode.copy()
        task.step(expert.act(task))
    return task, memory, episode


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("id", sorted(TASKS))
def test_a_task_sees_many_worlds_as_it_sees_one(id, kind):
    worlds = [played(id, seed, steps) for seed, steps in ((0, 1), (1, 8), (2, 30), (3, 45))]
    array, task = KINDS[kind], worlds[0][0]
    fields = {name: array([getattr(world.data, name) for world, _, _ in worlds]) for name in FIELDS}
    view = View(task.model, lambda name: fields[name])
    verdict = task.judge(view, array([memory for _, memory, _ in worlds]))
    outcome = task.outcome(verdict, array([episode for _, _, episode in worlds]))
    state, start = task.state(view), task.begin(view)
    for i, (world, memory, episode) in enumerate(worlds):
        single = world.judge(world.view, memory)
        meant = world.outcome(single, episode)
        np.testing.assert_allclose(state[i], world.state(world.view), atol=1e-12)
        np.testing.assert_allclose(start[i], world.begin(world.view), atol=1e-7)  # PushT: another algorithm
        np.testing.assert_allclose(verdict.memory[i], single.memory, atol=1e-7)
        np.testing.assert_allclose(outcome.reward[i], meant.reward, atol=1e-7)
        np.testing.assert_array_equal(outcome.episode[i], meant.episode)
        assert bool(outcome.success[i]) == bool(meant.success)
        assert bool(outcome.truncated[i]) == bool(meant.truncated)


class Stacked:
    """`Kinematics` of many arms by those of one."""

    def __init__(self, array):
        self._one, self._array = ToolKinematics(), array

    def pose(self, q):
        return self._array([self._one.pose(row) for row in np.asarray(q)])

    def inverse(self, pose, start):
        found = [self._one.inverse(p, q) for p, q in zip(np.asarray(pose), np.asarray(start), strict=True)]
        return self._array([q for q, _ in found]), self._array([error for _, error in found])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", sorted(CONTROLS))
def test_a_control_moves_many_references_as_it_moves_one(space, kind):
    array, rng = KINDS[kind], np.random.default_rng(0)
    many = CONTROLS[space](Stacked(array), 0.1, array(np.zeros((3, 11))))
    singles = [CONTROLS[space](ToolKinematics(), 0.1) for _ in range(3)]
    for i, single in enumerate(singles):
        single.reset(HOME + rng.uniform(-0.1, 0.1, 6), 0.5)
        many.reference[i] = array(single.reference)
    for scale in (0.02, 0.5, 10.0):
        actions = np.stack([single.hold() for single in singles]) + rng.uniform(-scale, scale, (3, len(many.low)))
        many.command(array(actions))
        for single, action in zip(singles, actions, strict=True):
            single.command(action)
        np.testing.assert_allclose(many.reference, [single.reference for single in singles], atol=1e-9)


POSE = st.tuples(st.floats(-0.25, 0.25), st.floats(-0.25, 0.25), st.floats(-7.0, 7.0))


@given(POSE)
@example((0.0, 0.0, np.pi / 2))
@example((BAR[2] - STEM[2], 0.0, 0.0))  # side on side, one within the other
@example((STEM[0] - BAR[2], 0.0, 0.0))  # side on side, one outside the other
def test_overlap_of_rectangles_is_the_clipped_area(pose):
    x, y, yaw = pose
    cos, sin = np.cos(yaw), np.sin(yaw)
    x0, y0, x1, y1 = BAR
    corners = [(x + cos * a - sin * b, y + sin * a + cos * b) for a, b in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    assert overlap(BAR, np.array(pose), STEM) == pytest.approx(clipped_area(corners, STEM), abs=1e-9)


@given(POSE, POSE)
def test_coverage_of_many_is_that_of_each(block, goal):
    poses = np.array([block, goal])
    many = coverage(torch.from_numpy(poses), torch.from_numpy(poses[::-1].copy()))
    for i in range(2):
        assert many[i] == pytest.approx(coverage(poses[i], poses[1 - i]), abs=1e-7)


def test_length_is_that_of_vectors():
    vectors = np.random.default_rng(0).normal(size=(4, 5, 3))
    np.testing.assert_allclose(length(vectors), np.linalg.norm(vectors, axis=-1), rtol=1e-14)
    np.testing.assert_allclose(length(torch.tensor(vectors)), np.linalg.norm(vectors, axis=-1), rtol=1e-14)
