"""Each task's own rules, and its expert."""

import numpy as np
import pytest

from robopol.envs import make_env, make_expert
from robopol.envs.make import TASKS
from robopol.envs.push import GOAL_RADIUS, Push
from robopol.envs.reach import HOLD_STEPS, Reach
from robopol.errors import EnvError


def play(env, expert, seed):
    """Play one episode; return its rewards, its length, its last flags and info."""
    env.reset(seed=seed)
    expert.reset(env, np.random.default_rng(seed))
    rewards = []
    while True:
        _, reward, terminated, truncated, info = env.step(expert.act(env))
        rewards.append(reward)
        if terminated or truncated:
            return rewards, terminated, truncated, info


@pytest.mark.parametrize("id", sorted(TASKS))
@pytest.mark.parametrize("kind", ["ee_delta", "ee_pose", "joint_pos", "joint_delta"])
def test_expert_succeeds_in_every_action_space(id, kind):
    env = make_env(id, action_space=kind).envs[0]
    for way in env.way_names or (None,):
        for seed in range(2):
            rewards, terminated, truncated, info = play(env, make_expert(id, way=way), seed)
            assert info["success"]
            assert terminated
            assert not truncated
            assert info["way"] == (env.way_names.index(way) if way else -1)
            assert 1.5 < sum(rewards) <= 2.0 + 1e-6


def test_expert_draws_both_ways():
    expert = make_expert("robopol/Push-v0")
    env = Push()
    env.reset(seed=0)
    ways = []
    for seed in range(40):
        expert.reset(env, np.random.default_rng(seed))
        ways.append(expert.way)
    assert 10 <= sum(ways) <= 30


def test_expert_noise_disturbs_the_executed_action_only():
    env = Push()
    env.reset(seed=0)
    expert, quiet = make_expert(env.id, way="left", noise=0.003), make_expert(env.id, way="left", noise=0.0)
    expert.reset(env, np.random.default_rng(0))
    quiet.reset(env, np.random.default_rng(0))
    errors = []
    for _ in range(200):
        action = expert.act(env)
        np.testing.assert_array_equal(expert.clean, quiet.act(env))
        errors.append(action[:3] - expert.clean[:3])
    assert np.std(errors) == pytest.approx(0.003, rel=0.2)


def test_push_mean_of_the_two_ways_fails():
    env = Push()
    for seed in range(2):
        env.reset(seed=seed)
        left, right = (make_expert(env.id, way=way, noise=0.0) for way in env.way_names)
        left.reset(env, np.random.default_rng(0))
        right.reset(env, np.random.default_rng(0))
        done = False
        while not done:
            _, _, terminated, truncated, info = env.step((left.act(env) + right.act(env)) / 2)
            done = terminated or truncated
        assert not info["success"]


def test_push_starts_with_the_fingers_clear_of_the_disc():
    env = Push()
    disc = env.model.geom("disc").id
    for seed in range(300):
        env.reset(seed=seed)
        touching = {env.model.geom(g).name for c in env.data.contact for g in c.geom if disc in c.geom}
        assert touching == {"disc", "table"}


def test_push_success_is_at_the_goal_only():
    env = Push()
    env.reset(seed=0)
    joint = env.model.joint("disc").qposadr[0]
    for distance, success in ((GOAL_RADIUS + 0.002, False), (GOAL_RADIUS - 0.002, True)):
        env.reset(seed=0)
        env.data.qpos[joint : joint + 2] = env.goal + np.array([distance, 0.0])
        _, _, terminated, _, info = env.step(env.control.hold())
        assert terminated is success
        assert info["success"] is success


def test_push_way_is_the_side_on_which_the_disc_passed():
    env = Push()
    joint = env.model.joint("disc").qposadr[0]
    for side, way in ((0.1, 0), (-0.1, 1)):
        env.reset(seed=0)
        env.data.qpos[joint : joint + 2] = env.block + np.array([0.01, side])
        assert env.step(env.control.hold())[4]["way"] == way
        # It stays what it was, whatever the disc does afterwards.
        env.data.qpos[joint : joint + 2] = env.block + np.array([0.06, -side])
        assert env.step(env.control.hold())[4]["way"] == way


def test_reach_wants_the_tool_to_stay():
    env = Reach()
    env.reset(seed=0)
    counts = []
    for _ in range(HOLD_STEPS):
        env.data.mocap_pos[0] = env.tool_pose()[:3]
        counts.append(env.step(env.control.hold())[2])
    assert counts == [False] * (HOLD_STEPS - 1) + [True]
    env.reset(seed=0)
    for i in range(2 * HOLD_STEPS):
        away = 0.1 * (i % HOLD_STEPS == HOLD_STEPS - 1)
        env.data.mocap_pos[0] = env.tool_pose()[:3] + np.array([0.0, 0.0, away])
        assert not env.step(env.control.hold())[2]


def test_expert_faults_are_said():
    with pytest.raises(EnvError, match="no way 'up'; the ways are: left, right"):
        make_expert("robopol/Push-v0", way="up")
    with pytest.raises(EnvError, match="one way only"):
        make_expert("robopol/Reach-v0", way="left")
    with pytest.raises(EnvError, match="at least 0"):
        make_expert("robopol/Push-v0", noise=-1.0)
    with pytest.raises(EnvError, match="did you mean robopol/Push-v0"):
        make_expert("robopol/Pusj-v0")
