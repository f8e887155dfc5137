import dataset_files as files
import numpy as np
import pytest
import torch

from robopol.data import load_episodes
from robopol.data.formats import npz
from robopol.errors import DataError, DataWarning


def load(path, **options):
    return load_episodes(f"ogbench:{path}", **options)


def trajectories(path, lengths, seed=0, visual=False):
    """A raw file of random trajectories, T + 1 rows each, with the simulator's state."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths) + len(lengths)
    obs = rng.integers(256, size=(rows, 4, 5, 3)).astype(np.uint8) if visual else rng.normal(size=(rows, 6))
    data = {
        "observations": obs,
        "actions": rng.uniform(-1, 1, size=(rows, 3)).astype(np.float32),
        "terminals": np.isin(np.arange(rows), np.cumsum(np.array(lengths) + 1) - 1).astype(np.float32),
        "qpos": rng.normal(size=(rows, 4)),
        "qvel": rng.normal(size=(rows, 3)).astype(np.float32),
        "button_states": rng.integers(2, size=(rows, 2)),
    }
    np.savez_compressed(path, **data)
    return data


@pytest.mark.parametrize("visual", [False, True])
def test_rows_are_those_of_ogbenchs_own_loader(tmp_path, visual, monkeypatch):
    loader = pytest.importorskip("ogbench.utils").load_dataset
    monkeypatch.setattr(npz, "_PIECE", 150)  # two images: trajectories and pieces end in different rows
    trajectories(tmp_path / "f.npz", [3, 1, 7, 2], visual=visual)
    theirs = loader(str(tmp_path / "f.npz"), ob_dtype=np.uint8 if visual else np.float32, add_info=True)
    read = load(tmp_path / "f.npz")
    key = "images.pixels" if visual else "state"
    assert set(read.obs) == {key}
    following, known = read.next_obs(torch.arange(13))
    assert known.all()
    np.testing.assert_array_equal(read.obs[key], theirs["observations"])
    np.testing.assert_array_equal(following[key], theirs["next_observations"])
    np.testing.assert_array_equal(read.action, theirs["actions"])
    np.testing.assert_array_equal(read.truncated, theirs["terminals"])
    infos = np.concatenate([theirs[name] for name in ("qpos", "qvel", "button_states")], axis=1)
    np.testing.assert_array_equal(read.states, infos)
    assert read.lengths.tolist() == [3, 1, 7, 2]


def test_losses_are_named_once(tmp_path):
    more = {"actions": np.full((7, 1), 1.005, np.float32), "qpos": np.zeros((7, 2)), "speed": np.zeros(7)}
    path = files.ogbench(tmp_path / "f.npz", observations=np.full((7, 1), 0.1), **more)
    with pytest.warns(DataWarning) as caught:
        load(path)
    (warning,) = caught
    assert str(warning.message) == (
        f"{path}: not carried over: speed, actions beyond [-1, 1], which are clipped, simulator states after the last "
        "steps; rounded to float32: obs.state"
    )


def test_ends_of_trajectories_are_no_terminals(tmp_path):
    read = load(files.ogbench(tmp_path / "f.npz"))
    assert not read.terminated.any()
    assert not read.success.any()
    assert read.reward.tolist() == [0] * 5
    assert read.states is None
    assert read.meta.env_id == ""


def test_masks_and_rewards_of_one_task(tmp_path):
    masks = np.array([1, 0, 0, 1, 1, 1, 1.0])  # the goal was left again
    read = load(files.ogbench(tmp_path / "f.npz", masks=masks, rewards=-masks), env="antmaze-large-v0")
    assert read.terminated.nonzero().flatten().tolist() == [1, 2]
    assert read.truncated.nonzero().flatten().tolist() == [2, 4]
    assert read.success.tolist() == [True, False]
    assert read.reward.tolist() == [-1, 0, 0, -1, -1]
    assert read.meta.env_id == "antmaze-large-v0"


def test_actions_are_clipped_by_what_casts_add(tmp_path):
    actions = np.full((7, 2), 1 + 1e-3, np.float32)
    assert load(files.ogbench(tmp_path / "f.npz", actions=actions)).action.max() == 1
    with pytest.raises(DataError, match=r"lie in \[-1, 1\]"):
        load(files.ogbench(tmp_path / "g.npz", actions=2 * actions))


SPOILT = {
    "missing": ({"terminals": None}, "there is no array 'terminals'"),
    "cut off": ({"terminals": np.array([0, 0, 0, 1, 0, 0, 0.0])}, "the last row must have terminal 1"),
    "no end": ({"terminals": np.zeros(7)}, "the last row must have terminal 1"),
    "no step": ({"terminals": np.array([0, 0, 0, 1, 1, 0, 1.0])}, "trajectory 1 has no step"),
    "half": ({"terminals": np.array([0, 0, 0, 0.5, 0, 0, 1])}, "terminals must be one 0 or 1 a row"),
    "ragged": ({"actions": np.zeros((6, 1))}, "terminals has shape"),
    "ragged obs": ({"observations": np.zeros((6, 1))}, r"observations have shape \(6, 1\)"),
    "ragged info": ({"qpos": np.zeros((6, 1))}, "qpos has shape"),
    "float images": ({"observations": np.zeros((7, 4, 4, 3))}, "must be uint8"),
    "nan": ({"observations": np.full((7, 1), np.nan)}, "obs.state is not finite"),
    "nan action": ({"actions": np.full((7, 1), np.nan)}, "finite"),
    "discrete": ({"actions": np.zeros((7, 1), np.int32)}, "continuous"),
    "masks": ({"masks": np.full(7, 2.0)}, "masks must be one 0 or 1"),
    "text": ({"actions": np.full((7, 1), "x")}, "only plain numbers"),
    "regular": ({"next_observations": np.zeros((7, 1))}, "a view that OGBench's loader made"),
    "compact": ({"valids": np.zeros(7)}, "a view that OGBench's loader made"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_files_get_one_clear_error(tmp_path, name):
    changed, words = SPOILT[name]
    path = files.ogbench(tmp_path / "f.npz", **changed)
    with pytest.raises(DataError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)
