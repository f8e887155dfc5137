"""The batch of environments: slots, rows, rules."""

import os
import signal
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch

import robopol.envs
from robopol.envs import list_envs, make_env
from robopol.errors import EnvError

ID = "robopol/Reach-v0"


def actions_of(seed, steps=6):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(steps, 5, generator=generator) - 0.5) * 0.05


def test_an_episode_does_not_depend_on_its_slot_or_the_batch():
    alone = make_env("robopol/Push-v0")
    many = make_env("robopol/Push-v0", num_envs=3)
    seeds = {2: 11, 0: 12, 1: 13}
    first = many.reset(list(seeds), list(seeds.values()))
    rows = []
    for t in range(6):
        rows.append(many.step(list(seeds), torch.stack([actions_of(seed)[t] for seed in seeds.values()])))
    for row, seed in enumerate(seeds.values()):
        assert torch.equal(alone.reset([0], [seed])["state"][0], first["state"][row])
        for t in range(6):
            result = alone.step([0], actions_of(seed)[t : t + 1])
            assert torch.equal(result.obs["state"][0], rows[t].obs["state"][row])
            assert result.reward[0] == rows[t].reward[row]


def test_rows_follow_the_order_of_the_slots():
    env = make_env(ID, num_envs=3)
    forward = env.reset([0, 2], [5, 6])["state"]
    backward = env.reset([2, 0], [6, 5])["state"]
    assert torch.equal(forward, backward.flip(0))


def test_shapes_and_types():
    env = make_env(ID, num_envs=2)
    obs = env.reset([1], [0])
    assert obs["state"].shape == (1, *env.spec.obs_shapes["state"])
    result = env.step([1], torch.zeros(1, 5))
    assert result.obs["state"].dtype == torch.float32
    types = [x.dtype for x in result[1:]]
    assert types == [torch.float32, torch.bool, torch.bool, torch.bool, torch.int64]
    assert all(x.shape == (1,) for x in result[1:])
    empty = env.step([], torch.zeros(0, 5))
    assert empty.obs["state"].shape == (0, *env.spec.obs_shapes["state"])
    assert empty.way.shape == (0,)


def test_nothing_resets_itself():
    env = make_env(ID, num_envs=2, max_episode_steps=2)
    with pytest.raises(EnvError, match=r"slots \[1\] were never reset"):
        env.step([1], torch.zeros(1, 5))
    env.reset([0, 1], [0, 1])
    env.step([0], torch.zeros(1, 5))
    assert env.step([0, 1], torch.zeros(2, 5)).truncated.tolist() == [True, False]
    with pytest.raises(EnvError, match=r"slots \[0\].*reset them first"):
        env.step([0, 1], torch.zeros(2, 5))
    env.reset([0], [0])
    env.step([0, 1], torch.zeros(2, 5))


def test_a_refused_step_moves_nothing():
    env = make_env(ID, num_envs=2)
    env.reset([0, 1], [0, 1])
    before = env.envs[0].save_state()
    with pytest.raises(EnvError, match=r"slot 1 is not finite"):
        env.step([0, 1], torch.tensor([[0.01] * 5, [float("inf")] * 5]))
    np.testing.assert_array_equal(env.envs[0].save_state(), before)


def test_wrong_calls_are_refused_in_words():
    env = make_env(ID, num_envs=2)
    with pytest.raises(EnvError, match=r"distinct and within 0\.\.1"):
        env.reset([0, 2], [0, 1])
    with pytest.raises(EnvError, match="distinct"):
        env.reset([1, 1], [0, 1])
    with pytest.raises(EnvError, match="with 1 seeds"):
        env.reset([0, 1], [0])
    with pytest.raises(EnvError, match="at least 0"):
        env.reset([0], [-1])
    env.reset([0], [0])
    with pytest.raises(EnvError, match=r"shape \(1, 4\), needed \(1, 5\)"):
        env.step([0], torch.zeros(1, 4))
    with pytest.raises(EnvError, match="num_envs"):
        make_env(ID, num_envs=0)


def test_unknown_ids_name_the_nearest():
    with pytest.raises(EnvError, match="did you mean robopol/Push-v0"):
        make_env("robopol/Pushh-v0")
    with pytest.raises(EnvError, match="robopol's own"):
        make_env("nothing/like-it-v0")


def test_other_gymnasium_environments_are_taken():
    with make_env("Pendulum-v1", num_envs=2) as env:
        assert env.spec.action_space == "box"
        assert env.spec.max_episode_steps == 200
        assert env.spec.control_hz == pytest.approx(20)
        obs = env.reset([0, 1], [3, 4])
        direct = gymnasium.make("Pendulum-v1").reset(seed=4)[0]
        np.testing.assert_array_equal(obs["state"][1].numpy(), direct)
        result = env.step([0, 1], torch.tensor([[0.5], [9.0]]))
        assert result.obs["state"].shape == (2, 3)
        assert result.way.tolist() == [-1, -1]
        assert result.success.tolist() == [False, False]


def test_environments_that_do_not_fit_are_refused():
    with pytest.raises(EnvError, match=r"actions Discrete\(2\)"):
        make_env("CartPole-v1")
    with pytest.raises(EnvError, match="cannot make 'Pendulum-v1'"):
        make_env("Pendulum-v1", nonsense=1)


def test_success_of_others_is_read_from_info(monkeypatch):
    env = make_env("Pendulum-v1")
    step = env.envs[0].step
    monkeypatch.setattr(env.envs[0], "step", lambda action: (*step(action)[:4], {"is_success": True}))
    env.reset([0], [0])
    assert env.step([0], torch.zeros(1, 1)).success.tolist() == [True]


def test_registered_with_gymnasium():
    for id in list_envs():
        assert gymnasium.spec(id).id == id
    assert set(robopol.envs.__all__) <= set(dir(robopol.envs))


def test_importing_does_not_import_mujoco():
    code = "import sys, robopol.envs; assert 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_worker_that_was_killed_is_named(capfd):
    with make_env("robopol/MultiGoal-v0", 2, workers=2) as env:
        env.reset([0, 1], [0, 1])
        os.kill(env._processes[1].pid, signal.SIGKILL)
        env._processes[1].join(10)
        with pytest.raises(EnvError, match="worker 1 died with exit code -9"):
            env.step([0, 1], torch.zeros(2, 2))
    assert "Traceback" not in capfd.readouterr().err
