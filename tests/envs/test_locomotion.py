"""The definitions of gymnasium's tasks against gymnasium's own environments."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils import seeding

from robopol.envs.locomotion import find_task, list_tasks

OTHER_SETTINGS = {
    "Ant-v5": {"main_body": "aux_1", "contact_cost_weight": 0.1, "include_cfrc_ext_in_observation": False},
    "HalfCheetah-v5": {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 2, "frame_skip": 1},
    "Hopper-v5": {"healthy_state_range": (-1.0, 1.5), "healthy_reward": 3, "reset_noise_scale": 0.1},
    "Humanoid-v5": {"include_cvel_in_observation": False, "contact_cost_range": (0.0, 1e-4), "contact_cost_weight": 1},
    "HumanoidStandup-v5": {"uph_cost_weight": 2, "include_qfrc_actuator_in_observation": False},
    "InvertedDoublePendulum-v5": {"healthy_reward": 1.5},
    "InvertedPendulum-v5": {"reset_noise_scale": 0.15},
    "Pusher-v5": {"reward_near_weight": 2, "reward_control_weight": 1.5},
    "Reacher-v5": {"reward_dist_weight": 0.5},
    "Swimmer-v5": {"forward_reward_weight": 7.5, "reset_noise_scale": 0.5},
    "Walker2d-v5": {"terminate_when_unhealthy": False, "healthy_z_range": (1.2, 1.3)},
}


def walk(id, options, episodes=2, steps=40):
    """Yield what gymnasium says of a step, and what the definition reads."""
    env = gymnasium.make(id, **options)
    data = env.unwrapped.data
    task = find_task(id, options)(gymnasium.make(id, **options), options)
    rng = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high

    def fields():
        return {field: getattr(data, field)[None].copy() for field in task.fields}

    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        qpos, qvel = task.start(seeding.np_random(seed)[0])
        np.testing.assert_array_equal(qpos, data.qpos)
        np.testing.assert_array_equal(qvel, data.qvel)
        before = fields()
        np.testing.assert_array_equal(task.observation(before)[0], observation)
        for _ in range(steps):
            action = rng.uniform(low, high).astype(np.float32)
            told = env.step(action)
            now = fields()
            yield task, before, now, action[None], told
            before = now


@pytest.mark.parametrize("id", list_tasks())
@pytest.mark.parametrize("other", [False, True])
def test_observation_reward_and_termination_are_those_of_gymnasium(id, other):
    for task, before, now, action, (observation, reward, terminated, *_) in walk(
        id, OTHER_SETTINGS[id] if other else {}
    ):
        seen = task.observation(now)
        assert seen.dtype == np.float64
        np.testing.assert_array_equal(seen[0], observation)
        rewards, ends = task.judge(before, now, action)
        # numpy's power of a scalar and of an array may differ in the last bit
        assert rewards[0] == pytest.approx(reward, rel=1e-15, abs=1e-15)
        assert np.float32(rewards[0]) == np.float32(reward)
        assert ends.dtype == bool
        assert ends[0] == terminated


@pytest.mark.parametrize("id", list_tasks())
def test_tensors_are_taken_as_well_as_arrays(id):
    steps = list(walk(id, {}, episodes=1, steps=8))
    before, now = ({k: np.concatenate([step[i][k] for step in steps]) for k in steps[0][i]} for i in (1, 2))
    action = np.concatenate([step[3] for step in steps]).astype(np.float64)
    env = gymnasium.make(id)
    for convert in (np.asarray, torch.tensor):
        task = find_task(id, {})(env, {}, convert)
        read = {k: convert(v) for k, v in now.items()}
        found = (
            task.observation(read),
            *task.judge({k: convert(v) for k, v in before.items()}, read, convert(action)),
        )
        if convert is np.asarray:
            expected = found
    for one, other in zip(expected, found, strict=True):
        assert isinstance(other, torch.Tensor)
        assert other.shape == one.shape
        np.testing.assert_allclose(other.numpy(), one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("id", "field", "index", "value"),
    [
        ("Hopper-v5", "qpos", 1, 0.69),
        ("Hopper-v5", "qvel", 3, -101.0),
        ("Walker2d-v5", "qpos", 2, 1.01),
        ("Ant-v5", "qpos", 2, 0.19),
        ("Ant-v5", "qvel", 0, np.inf),
        ("Humanoid-v5", "qpos", 2, np.nan),
        ("InvertedPendulum-v5", "qvel", 1, np.nan),
    ],
)
def test_what_random_actions_do_not_reach_ends_the_episode_too(id, field, index, value):
    task, before, now, action, _ = next(walk(id, {}, steps=1))
    assert not task.judge(before, now, action)[1][0]
    now[field][0, index] = value
    assert task.judge(before, now, action)[1][0]


def test_only_what_is_sure_to_be_equal_has_a_definition(monkeypatch):
    assert find_task("Hopper-v5", {"healthy_z_range": [0.5, 2], "width": 64}) is not None
    assert find_task("Hopper-v4", {}) is None
    assert find_task("Hopper-v5", {"xml_file": "walker2d_v5.xml"}) is None
    assert find_task("Hopper-v5", {"render_mode": "human"}) is None
    assert find_task("Hopper-v5", {"reset_noise_scale": np.ones(6)}) is None
    spec = gymnasium.envs.registration.EnvSpec("Hopper-v5", entry_point="somewhere:else")
    monkeypatch.setitem(gymnasium.registry, "Hopper-v5", spec)
    assert find_task("Hopper-v5", {}) is None
