"""Files as OGBench and D4RL write them are restored and replayed here, and what they do not say is said."""

import json

import h5py
import numpy as np
import pytest
import torch

from robopol import cli
from robopol.data import load_episodes
from robopol.data.sources import known_options
from robopol.envs import make_env
from robopol.errors import EnvError

STEPS = 24
BUTTON = 4


@pytest.fixture(scope="module")
def world():
    pytest.importorskip("ogbench")
    with make_env("puzzle-3x3-v0", terminate_at_goal=False) as env:
        env.reset([0], [0])
        yield env


@pytest.fixture(scope="module")
def file(world, tmp_path_factory):
    """A button that upstream's oracle presses in upstream's own world, in the rows that upstream's script writes."""
    from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle

    env = world.envs[0].unwrapped
    np.random.seed(0)  # upstream draws from it
    oracle = ButtonMarkovOracle(env=env, gripper_always_closed=True)
    observation, info = env.reset(seed=0)
    oracle.reset(observation, info)
    kept = ("qpos", "qvel", "button_states")
    rows = {name: [] for name in ("observations", "actions", "terminals", *kept)}
    for step in range(STEPS + 1):
        info |= {
            "privileged/target_button": BUTTON,
            "privileged/target_button_state": 1 - rows["button_states"][0][BUTTON] if step else -1,
            "privileged/target_button_top_pos": env.data.site_xpos[env._button_site_ids[BUTTON]].copy(),
        }
        action = oracle.select_action(observation, info)
        following, _, _, _, info = env.step(action)
        values = (observation, action, step == STEPS, *(info[f"prev_{name}"] for name in kept))
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
        observation = following
    path = tmp_path_factory.mktemp("ogbench") / "puzzle-3x3-play-v0.npz"
    types = {"terminals": bool, "button_states": np.int64}
    np.savez(path, **{name: np.array(values, dtype=types.get(name, np.float32)) for name, values in rows.items()})
    return path


def test_buttons_are_restored_and_what_none_can_be_is_refused(world, file):
    episodes = load_episodes(f"ogbench:{file}")
    before, after = episodes.states[0], episodes.states[-1]
    for state in (before, after, before):
        found = world.restore_state(0, state)["state"][0]
        wanted = episodes.obs["state"][0 if state is before else -1]
        flags = found[19:].reshape(9, 4)[:, :2]  # of every button its state, one-hot, then position and velocity
        assert torch.equal(flags, wanted[19:].reshape(9, 4)[:, :2])
    with pytest.raises(EnvError, match="each must be 0 or 1"):
        world.restore_state(0, before + 1)
    with pytest.raises(EnvError, match=r"the state has shape \(\d+,\).*what upstream's datasets store behind them"):
        world.restore_state(0, before[:-2].contiguous())


def test_a_scene_with_buttons_is_replayed_from_its_recorded_states(world, file, capsys, monkeypatch):
    buttons = np.load(file)["button_states"]
    assert (buttons[0] != buttons[STEPS]).any(), "a button was pressed"
    # The file has no warm start of the solver, on which the observed force at the gripper depends a little.
    monkeypatch.setattr("robopol.evaluation.recorded_world.world_of", lambda episodes: world)  # making it takes seconds
    words = ["data", "check", f"ogbench:{file}?env=puzzle-3x3-v0", "replay=states", "tolerance=0.3", "--json"]
    status = cli.run(words)
    found = json.loads(capsys.readouterr().out)
    assert status == 0, found
    replay = found["replays"]["states"]
    assert (replay["episodes"], replay["differing"]) == (1, 0)
    assert any("without the solver's memory" in note for note in found["notes"])


def test_names_of_datasets_name_their_worlds():
    for name, env in (
        ("cube-single-play-v0", "cube-single-v0"),
        ("cube-single-play-v0-val", "cube-single-v0"),
        ("antmaze-large-navigate-v0", "antmaze-large-v0"),
        ("visual-puzzle-4x4-noisy-v0", "visual-puzzle-4x4-v0"),
        ("powder-v0", None),
        ("cube-single-v0", None),
    ):
        assert known_options("ogbench", name) == ({"env": env} if env else {})


def test_a_file_as_d4rl_writes_it_is_replayed_where_it_is_said_to(tmp_path, capsys):
    path = tmp_path / "hopper-medium-v2.hdf5"
    with make_env("Hopper-v5", backend="serial") as env, h5py.File(path, "w") as file:
        obs, rows = env.reset([0], [0]), []
        for action in torch.rand(40, 1, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1:
            time_and_state = env.save_state(0)
            result = env.step([0], action)
            qpos, qvel = time_and_state[1:7], time_and_state[7:13]
            ended = (result.terminated[0], result.truncated[0])
            rows.append((obs["state"][0], action[0], result.reward[0], *ended, qpos, qvel, result.obs["state"][0]))
            obs = env.reset([0], [len(rows)]) if any(ended) else result.obs
        names = ("observations", "actions", "rewards", "terminals", "timeouts", "infos/qpos", "infos/qvel")
        for name, values in zip((*names, "next_observations"), zip(*rows, strict=True), strict=True):
            file[name] = np.stack([np.asarray(value) for value in values])
    assert cli.run(["data", "check", f"d4rl:{path}?env=Hopper-v5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["replays"]["states"]["differing"] == 0
    assert found["replays"]["states"]["episodes"] > 1
    assert any("does not say with which versions of the simulator" in note for note in found["notes"])
    assert cli.run(["data", "check", f"d4rl:{path}?env=hopper-medium-v2", "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "Hopper-v5 has the same observations, states and actions, but is another version" in note


def test_what_minari_wrote_is_replayed_in_its_world(tmp_path, monkeypatch, capsys):
    """Episodes of the world itself, written by minari."""
    minari = pytest.importorskip("minari")
    gymnasium = pytest.importorskip("gymnasium")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    world, buffers = gymnasium.make("Hopper-v5"), []
    world.action_space.seed(0)
    for seed in (3, 4):
        seen, taken, over = [world.reset(seed=seed)[0]], [], False
        while not over:
            action = world.action_space.sample()
            observation, *outcome, _ = world.step(action)
            seen.append(observation)
            taken.append((action, *outcome))
            over = outcome[1] or outcome[2]
        actions, rewards, terminations, truncations = zip(*taken, strict=True)
        ends = {"rewards": list(rewards), "terminations": list(terminations), "truncations": list(truncations)}
        buffers.append(
            EpisodeBuffer(seed=seed, observations=np.array(seen), actions=np.array(actions), infos={}, **ends)
        )
    minari.create_dataset_from_buffers("hopper-v0", buffers, env="Hopper-v5")
    assert cli.run(["data", "check", f"minari:{tmp_path}/hopper-v0", "replay=actions", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"]
    assert found["replays"]["actions"]["episodes"] == 2
