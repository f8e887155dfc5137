"""A file that robosuite's and robomimic's own tools wrote, read and replayed in its recorded models."""

import json
import runpy
import sys
import types
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from robopol.commands.data_check import check
from robopol.data import load_episodes, save_episodes
from robopol.envs import make_env
from robopol.errors import DataError, EnvError

robosuite = pytest.importorskip("robosuite")
pytest.importorskip("robomimic")

STEPS, TOLERANCE = 6, 1.0
ASSETS = "/robosuite/models/assets/"


def stand_ins(patch):
    """What robomimic 0.3.0 imports and does not use here: one is no longer made, the other is large."""
    for name in ("mujoco_py", "torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        patch.setitem(sys.modules, name, types.ModuleType(name))
    transforms = sys.modules["torchvision.transforms"]
    transforms.Lambda = transforms.Compose = object
    transforms.functional = sys.modules["torchvision.transforms.functional"]
    sys.modules["torchvision"].transforms, sys.modules["torchvision"].models = transforms, None


def script(patch, name, *words):
    """Run a script of robomimic as its documentation says."""
    patch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_module(f"robomimic.scripts.{name}", run_name="__main__")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """robosuite's recorder and gatherer, then robomimic's converter and extraction of observations."""
    from robosuite.scripts.collect_human_demonstrations import gather_demonstrations_as_hdf5
    from robosuite.wrappers import DataCollectionWrapper

    folder = tmp_path_factory.mktemp("robosuite")
    told = {"env_name": "Lift", "robots": "Panda"}
    fixed = {"has_renderer": False, "has_offscreen_renderer": False, "use_camera_obs": False, "ignore_done": True}
    suite = robosuite.make(**told, **fixed, control_freq=20, seed=3)
    recorder = DataCollectionWrapper(suite, str(folder / "parts"))
    rng, (low, high) = np.random.default_rng(0), suite.action_spec
    for _ in range(3):
        recorder.reset()
        for _ in range(STEPS):
            recorder.step(rng.uniform(low, high))
        recorder.successful = True  # only then the gatherer takes it
    recorder.close()
    gather_demonstrations_as_hdf5(str(folder / "parts"), str(folder), json.dumps({**told, "control_freq": 20}))
    with pytest.MonkeyPatch.context() as patch:
        stand_ins(patch)
        script(patch, "conversion.convert_robosuite", "--dataset", folder / "demo.hdf5")
        script(patch, "dataset_states_to_obs", "--dataset", folder / "demo.hdf5", "--output_name", "low_dim.hdf5")
        script(patch, "split_train_val", "--dataset", folder / "low_dim.hdf5", "--ratio", 0.4)
    return folder


@pytest.fixture(scope="module")
def episodes(folder):
    return load_episodes(f"{folder}/low_dim.hdf5?dones=success")


def test_all_that_robomimic_extracted_is_read(folder, episodes):
    assert (len(episodes), episodes.meta.env_id) == (3, "robosuite/Lift")
    assert episodes.meta.versions == {"robosuite": robosuite.__version__}
    assert episodes.meta.control_hz == 20
    assert not episodes.terminated.any()
    assert episodes.truncated.nonzero()[:, 0].tolist() == [5, 11, 17]
    assert episodes.has_final.all()
    with h5py.File(folder / "low_dim.hdf5") as file:
        names = sorted(file["data"], key=lambda name: int(name[5:]))
        for index, name in enumerate(names):
            demo, rows = file[f"data/{name}"], slice(index * STEPS, (index + 1) * STEPS)
            assert set(demo["obs"]) == set(episodes.obs)
            for key, column in episodes.obs.items():
                wanted = np.array(demo[f"obs/{key}"], np.float32).reshape(STEPS, -1)
                assert np.array_equal(column[rows].reshape(STEPS, -1).numpy(), wanted), key
                last = np.array(demo[f"next_obs/{key}"][-1], np.float32).reshape(-1)
                assert np.array_equal(episodes.final_obs[key][index].reshape(-1).numpy(), last), key
            assert np.array_equal(episodes.action[rows].numpy(), np.array(demo["actions"], np.float32))
            assert np.array_equal(episodes.reward[rows].numpy(), np.array(demo["rewards"], np.float32))
            assert np.array_equal(episodes.states[rows].numpy(), demo["states"])
            assert episodes.meta.models[int(episodes.model[index])] == demo.attrs["model_file"]
    # what was extracted and what was recorded are of the same moment: the arm's joints are the first positions
    torch.testing.assert_close(episodes.obs["robot0_joint_pos"], episodes.states[:, 1:8].float(), atol=1e-5, rtol=0)
    assert load_episodes(f"{folder}/low_dim.hdf5?dones=success&filter=valid").lengths.tolist() == [STEPS]
    assert load_episodes(f"{folder}/low_dim.hdf5?dones=success&filter=train").num_steps == 2 * STEPS
    with pytest.raises(DataError, match=r"only simulator states; extract them with robomimic's dataset_states_to_obs"):
        load_episodes(f"{folder}/demo.hdf5?dones=success")


def test_robomimics_scripts_take_what_we_write(episodes, tmp_path, monkeypatch, capsys):
    """One divides the file, the other tells what is in it, bounds of the actions included."""
    stand_ins(monkeypatch)
    path = tmp_path / "ours.hdf5"
    save_episodes(episodes, path)
    script(monkeypatch, "split_train_val", "--dataset", path, "--ratio", 0.4)
    script(monkeypatch, "get_dataset_info", "--dataset", path, "--verbose")
    told = capsys.readouterr().out
    assert "1 validation demonstrations out of 3 total demonstrations." in told
    assert f"total transitions: {3 * STEPS}" in told
    assert '"env_name": "Lift"' in told
    parts = [load_episodes(f"{path}?filter={name}") for name in ("train", "valid")]
    assert [len(part) for part in parts] == [2, 1]
    assert load_episodes(path).equal(episodes)


def test_each_episode_is_replayed_in_its_own_model(episodes):
    """The controller's and the gripper's memory are not in the states: that much a step differs in any case.

    In their own models the three are 0.5, 0.5 and 0.8 off at most, in each other's 3.9, 1.8 and 4.8.
    """
    assert len(set(episodes.meta.models)) == 3  # the cube has another size in each
    facts, passed = check(episodes, "states", 3, STEPS, TOLERANCE)
    assert any("each episode is replayed in its own" in note for note in facts["notes"])
    assert any("the state does not decide obs.robot0_" in note for note in facts["notes"])
    assert passed, facts
    swapped = replace(episodes, model=episodes.model.roll(1))
    facts, passed = check(swapped, "states", 3, STEPS, TOLERANCE)
    assert not passed
    drifts = facts["replays"]["states"]["drifts"]
    assert all(drift["next_max"] > TOLERANCE and drift["worst"].startswith("obs.object[") for drift in drifts)


def test_models_that_do_more_are_not_loaded(episodes):
    first, *more = episodes.meta.models
    spoilt = {  # each costs robosuite a reset or two
        first.replace("<worldbody>", "<include file='/etc/hostname'/><worldbody>"): "an element <include>",
        first.replace("/robosuite/models/assets/", "/elsewhere/"): "which is none of robosuite/models/assets here",
        first.replace(
            "/robosuite/models/assets/", "/robosuite/models/assets/../../"
        ): "none of robosuite/models/assets",
        first.replace("cube", "ball"): "cannot go on in the recorded model",
    }
    for text, words in spoilt.items():
        assert text != first
        altered = replace(episodes, meta=episodes.meta.model_copy(update={"models": (text, *more)}))
        facts, passed = check(altered, "states", 1, 1, TOLERANCE)
        assert not passed
        assert facts["replays"] == {}
        assert [note for note in facts["notes"] if note.startswith("no replay of states: ") and words in note]


def test_a_world_is_whole_again_after_a_model_that_failed(episodes):
    with make_env("robosuite/Lift", **episodes.meta.env_options) as env:
        seen = env.reset([0], [5])
        with pytest.raises(EnvError, match="an element <include>"):
            env.load_model(0, "<mujoco><include file='a'/></mujoco>")
        with pytest.raises(EnvError, match="cannot go on in the recorded model"):
            env.load_model(0, "<mujoco><asset/><worldbody/></mujoco>")
        again = env.reset([0], [5])
        assert all(torch.equal(seen[key], again[key]) for key in seen)
        env.load_model(0, episodes.meta.models[0])
        env.restore_state(0, episodes.states[0])
        fresh = env.reset([0], [5])
        assert all(torch.equal(seen[key], fresh[key]) for key in seen)
