"""What holds for every task: determinism, saved states, domains, errors, gymnasium's rules."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robopol.envs import Domain, make_env, make_expert
from robopol.envs.make import TASKS
from robopol.envs.push import Push
from robopol.envs.reach import Reach
from robopol.errors import ConfigError, EnvError

IDS = sorted(TASKS)


def make(id, **options):
    return make_env(id, **options).envs[0]


def rollout(env, seed, steps=12):
    """Drive with actions that depend on the seed only; touch objects by following the expert's first
    actions."""
    rng = np.random.default_rng(seed)
    rows = [env.reset(seed=seed)[0]["state"]]
    for _ in range(steps):
        action = env.control.hold() + rng.uniform(0.0, 0.02, len(env.control.low))
        obs, reward, *_ = env.step(action.astype(np.float32))
        rows.append(np.append(obs["state"], reward))
    return np.concatenate(rows), env.save_state()


@pytest.mark.parametrize("id", IDS)
@pytest.mark.filterwarnings("ignore:.*Box observation space m.*infinity")
def test_gymnasium_checker_passes(id):
    check_env(gymnasium.make(id).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("id", IDS)
def test_a_used_environment_repeats_a_fresh_one_to_the_bit(id):
    domain = {"mass": [0.5, 2.0], "friction": [0.5, 1.5], "latency": [0, 2], "observation_noise": [0.0, 0.01]}
    fresh, fresh_state = rollout(make(id, domain=domain), 7)
    used = make(id, domain=domain)
    expert = make_expert(id, noise=0.01)
    used.reset(seed=3)
    expert.reset(used, np.random.default_rng(0))
    for _ in range(15):
        used.step(expert.act(used))
    again, again_state = rollout(used, 7)
    np.testing.assert_array_equal(fresh, again)
    np.testing.assert_array_equal(fresh_state, again_state)


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("kind", ["ee_delta", "joint_pos"])
def test_a_restored_state_goes_on_to_the_bit(id, kind):
    options = {"action_space": kind, "domain": Domain(mass=(0.5, 2.0), latency=2)}
    env, other = make(id, **options), make(id, **options)
    expert = make_expert(id)
    env.reset(seed=1)
    expert.reset(env, np.random.default_rng(1))
    for _ in range(8):
        env.step(expert.act(env))
    saved = env.save_state()
    actions = []
    ends = []
    for _ in range(5):
        actions.append(expert.act(env))
        ends.append(env.step(actions[-1]))
    other.reset(seed=2)
    np.testing.assert_array_equal(other.restore_state(saved)["state"][:6], saved[1:7].astype(np.float32))
    for action, end in zip(actions, ends, strict=True):
        obs, *rest = other.step(action)
        np.testing.assert_array_equal(obs["state"], end[0]["state"])
        assert rest == list(end[1:])
    np.testing.assert_array_equal(env.save_state(), other.save_state())


@pytest.mark.parametrize("id", IDS)
def test_names_describe_the_vectors(id):
    env = make(id)
    spec = env.env_spec
    assert spec.obs_shapes["state"] == (len(spec.state_names),)
    assert len(spec.action_names) == len(spec.action_low) == len(spec.action_high) == 5
    obs, info = env.reset(seed=0)
    assert obs["state"].dtype == np.float32
    assert info == {"success": False, "way": -1}


@pytest.mark.parametrize("id", IDS)
def test_spec_options_make_the_same_environment(id):
    spec = make(id, action_space="ee_pose", domain=Domain(latency=(0, 3))).env_spec
    assert make(id, **spec.options).env_spec == spec


def test_truncation_is_not_termination():
    env = Reach(max_episode_steps=3)
    env.reset(seed=0)
    flags = [env.step(env.control.hold())[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]


def test_mass_and_friction_are_scaled_and_restored():
    env = Push(domain=Domain(mass=2.0, friction=0.5))
    env.reset(seed=0)
    plain = Push()
    plain.reset(seed=0)
    disc = env.model.body("disc").id
    assert env.model.body_mass[disc] == 2 * plain.model.body_mass[disc]
    np.testing.assert_array_equal(env.model.body_inertia[disc], 2 * plain.model.body_inertia[disc])
    for geom in ("disc", "table"):
        np.testing.assert_array_equal(env.model.geom(geom).friction, 0.5 * plain.model.geom(geom).friction)
    finger = env.model.geom("finger_left").friction
    np.testing.assert_array_equal(finger, plain.model.geom("finger_left").friction)


def test_a_range_draws_anew_at_every_reset_from_the_seed():
    env = Push(domain=Domain(mass=(0.5, 2.0)))
    disc = env.model.body("disc").id
    masses = []
    for seed in (1, 2, 1):
        env.reset(seed=seed)
        masses.append(env.model.body_mass[disc])
    assert masses[0] == masses[2] != masses[1]
    assert 0.1 <= min(masses) <= max(masses) <= 0.4


@pytest.mark.parametrize("latency", [0, 1, 3])
def test_latency_delays_actions_by_control_steps(latency):
    env = Reach(domain=Domain(latency=latency))
    env.reset(seed=0)
    start = env.commanded_pose()
    moved = []
    for _ in range(5):
        env.step(np.array([0.01, 0, 0, 0, 0.5], dtype=np.float32))
        moved.append(round((env.commanded_pose()[0] - start[0]) / 0.01))
    assert moved == [max(0, i + 1 - latency) for i in range(5)]


def test_observation_noise_has_its_size_and_does_not_touch_the_physics():
    noisy, clean = Reach(domain=Domain(observation_noise=0.05)), Reach()
    noisy.reset(seed=0)
    clean.reset(seed=0)
    errors = []
    for _ in range(60):
        action = clean.control.hold()
        errors.append(noisy.step(action)[0]["state"] - clean.step(action)[0]["state"])
    np.testing.assert_array_equal(noisy.data.qpos, clean.data.qpos)
    assert np.std(errors) == pytest.approx(0.05, rel=0.1)


def test_bad_actions_are_refused_in_words():
    env = Reach()
    with pytest.raises(EnvError, match="before reset"):
        env.step(np.zeros(5))
    env.reset(seed=0)
    with pytest.raises(EnvError, match=r"shape \(4,\), needed \(5,\).*tool dx"):
        env.step(np.zeros(4))
    with pytest.raises(EnvError, match="not finite"):
        env.step(np.array([0, np.nan, 0, 0, 0]))
    with pytest.raises(EnvError, match=r"state has shape \(3,\)"):
        env.restore_state(np.zeros(3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"action_spaces": "ee_pose"}, "did you mean action_space"),
        ({"action_space": "torque"}, "joint_pos"),
        ({"control_hz": 7}, "must divide 400"),
        ({"max_episode_steps": 0}, "at least 1"),
        ({"cameras": ["top"]}, "front"),
        ({"cameras": ["front", "front"]}, "twice"),
        ({"image_size": [0, 10]}, "height, width"),
        ({"domain": {"mass": [2.0, 1.0]}}, "mass must satisfy"),
        ({"domain": {"latency": 99}}, "latency must satisfy"),
    ],
)
def test_bad_options_are_refused_in_words(options, words):
    with pytest.raises(ConfigError, match=words):
        Reach(**options)
