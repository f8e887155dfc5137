"""Baselines of Stable-Baselines3 under our evaluation: what they are shown, told and leave."""

import json
import shlex

import numpy as np
import pytest
import torch

from robopol import cli
from robopol.checkpoint import load_policy
from robopol.config import parse
from robopol.configs import load_config
from robopol.envs import make_env
from robopol.errors import CheckpointError, ConfigError
from robopol.training.config import TrainConfig
from robopol.training.train import resume, train

pytest.importorskip("sb3_contrib")
from robopol.training import sb3
from robopol.training.sb3_worlds import Worlds

SMALL = ["env=multi_goal", "env.options.max_episode_steps=10", "collection.num_envs=2", "runtime.threads=1"]
SMALL += ["algo.options={policy_kwargs: {net_arch: [8]}}", "batch_size=8", "log_every=20", "collection.capacity=500"]
SMALL += ["eval.every=40", "eval.episodes=2", "eval.final_episodes=4", "eval.num_envs=2", "eval.videos=0"]
OFF = ["phases.online.env_steps=80", "phases.online.warmup=20", "phases.online.updates_per_step=0.5"]
ON = ["phases.online.env_steps=80", "phases.online.rollout=40"]


def config(*words: str) -> TrainConfig:
    return parse(TrainConfig, load_config("train", [*SMALL, *words]))


def test_they_see_true_last_observations_and_whether_time_was_out():
    with make_env("robopol/MultiGoal-v0", 3, max_episode_steps=18) as env, make_env("robopol/MultiGoal-v0", 1) as alone:
        worlds = Worlds(env, 5)
        obs, endings = worlds.reset(), []
        assert obs.shape == (3, 2)
        for _ in range(40):
            actions = np.array([[0.05, 0.0], [0.05, 0.0], [0.0, 0.01]], np.float32)
            before, (obs, _reward, over, infos) = obs, worlds.step(actions)
            for slot in np.flatnonzero(over):
                last = infos[slot]["terminal_observation"]
                np.testing.assert_allclose(last, before[slot] + actions[slot], atol=1e-6)
                assert np.abs(obs[slot]).max() <= 0.1, "the next episode has begun"
                endings.append((int(slot), infos[slot]["TimeLimit.truncated"], infos[slot]["is_success"]))
            assert not any("terminal_observation" in infos[slot] for slot in np.flatnonzero(~over))
        assert (0, False, True) in endings
        assert (2, True, False) in endings
        first = alone.reset([0], [sb3_seed(0)])["state"][0]
        assert torch.equal(torch.from_numpy(Worlds(env, 5).reset()[0]), first), "episodes are those of our own runs"


def sb3_seed(number: int) -> int:
    from robopol.training.collector import FIRST_SEED
    from robopol.training.seeding import seed_of

    return FIRST_SEED + seed_of(5, "episode", number) % FIRST_SEED


@pytest.mark.parametrize(("algo", "more"), [("sac", OFF), ("td3", OFF), ("ppo", ON), ("trpo", ON)])
def test_a_baseline_leaves_what_a_run_leaves(tmp_path, algo, more):
    run = tmp_path / "run"
    train(config(f"algo=sb3_{algo}", *more, f"run={run}"), ["from", "a test"])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["env_steps"] == 80
    assert summary["updates"] > 0
    assert {"success_ci95", "return_ci95", "parameters", "train_seconds"} <= summary.keys()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["env_steps"] for line in lines if "eval/return_mean" in line] == [40]
    judged = next(line["global_step"] for line in lines if "eval/return_mean" in line)
    assert judged > 0, "after the updates that the steps brought about"
    assert any("rollout/return_mean" in line for line in lines)
    card = (run / "README.md").read_text()
    command = shlex.split(next(line for line in card.splitlines() if line.startswith("robopol eval")))
    assert cli.run([*command[1:], "episodes=4", f"out={tmp_path / 'again.json'}"]) == 0
    again, found = (json.loads(file.read_text()) for file in (tmp_path / "again.json", run / "evaluation.json"))
    assert again["outcomes"] == found["outcomes"]
    with pytest.raises(CheckpointError, match=r"name it by its algorithm, as in checkpoint=sb3:SAC:.*trust=true"):
        load_policy(run)
    with pytest.raises(ConfigError, match=r"delete .*, or begin another run="):
        resume(run)
    with pytest.raises(CheckpointError, match="already holds a run, and baselines do not go on"):
        train(config(f"algo=sb3_{algo}", *more, f"run={run}"), [])


def test_a_run_that_is_not_judged_on_its_way_has_no_curves(tmp_path):
    run = tmp_path / "run"
    train(config("algo=sb3_sac", *OFF, "eval.every=1000", f"run={run}"), [])
    assert (run / "summary.json").is_file()
    assert not (run / "curves.png").exists()


def agent_of(*words: str):
    made = config(*words, "run=none")
    (phase,) = made.phases.values()
    with make_env("robopol/MultiGoal-v0", made.collection.num_envs) as env:
        return sb3._agent(made, phase, Worlds(env, 0))


def test_agents_are_told_what_the_run_says():
    agent = agent_of("algo=sb3_td3", *OFF, "seed=7", "algo.options.learning_rate=0.01")
    assert (agent.learning_starts, agent.batch_size, agent.gradient_steps, agent.buffer_size) == (20, 8, 1, 500)
    assert (agent.seed, agent.learning_rate, agent.n_envs) == (7, 0.01, 2)
    np.testing.assert_allclose(agent.action_noise._sigma, 0.1)  # for the agent actions lie in [-1, 1]
    three = agent_of(
        "algo=sb3_sac",
        "collection.num_envs=3",
        "phases.online.env_steps=90",
        "phases.online.warmup=30",
        "phases.online.updates_per_step=0.333333",
    )
    assert (three.gradient_steps, three.n_envs) == (1, 3)
    agent = agent_of("algo=sb3_ppo", *ON)
    assert (agent.n_steps, agent.batch_size) == (20, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algo=sb3_sac", *OFF, "policy=squashed_gaussian"], "leave out data, checkpoint, policy, model"),
        (["algo=sb3_sac", *OFF, "data.demos.uri=x"], "leave out data"),
        (["algo=sb3_sac", *OFF, "phases.online.updates_per_step=0.3"], "whole gradient steps .*updates_per_step=0.5"),
        (["algo=sb3_sac", *OFF, "algo.options.lr=1"], "SAC of Stable-Baselines3 has no lr; it has .*learning_rate"),
        (["algo=sb3_sac", *OFF, "algo.options.learning_rate=x"], "cannot be made so"),
        (["algo=sb3_sac", *OFF, "env=none"], "no world was named"),
        (["algo=sb3_sac", *OFF, "env.options.target=shown"], "on one vector, 'state'; .* has state, target"),
        (["algo=sb3_sac", *OFF, "runtime.device=cuda"], "trains on the CPU, not on cuda"),
        (["algo=sb3_sac", "schedule=on_policy", *ON], "learns from a replay, in one phase: set schedule=online"),
        (["algo=sb3_ppo", "schedule=online", *OFF], "learns from rollouts, in one phase: set schedule=on_policy"),
    ],
)
def test_what_cannot_run_is_refused_in_words(tmp_path, words, message):
    small = [word for word in SMALL if not ("env=none" in words and word.startswith("env"))]
    made = parse(TrainConfig, load_config("train", [*small, *words, f"run={tmp_path / 'run'}"]))
    with pytest.raises(ConfigError, match=message):
        train(made, [])
    assert not (tmp_path / "run").exists()
