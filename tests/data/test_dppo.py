import dataset_files as files
import numpy as np
import pytest
import torch

from robopol.data import load_episodes
from robopol.errors import DataError, DataWarning


def load(path, **options):
    return load_episodes(f"dppo:{path}", **options)


def random_files(folder, seed=0, constant=True):
    """States and actions of all magnitudes, scaled as DPPO's scripts do; returns what they were."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(50, 4)) * [1e-3, 1, 100, 1e4] + [0, -5, 1e3, 1]
    actions = rng.normal(size=(50, 3))
    if constant:
        states[:, 0] = 0.25
    columns, bounds = [], {}
    for name, values in (("obs", states), ("action", actions)):
        low, high = values.min(0), values.max(0)
        bounds |= {f"{name}_min": low, f"{name}_max": high}
        columns.append(2 * (values - low) / (high - low + 1e-6) - 1)
    more = {"rewards": rng.normal(size=50), "terminals": np.arange(50) == 19, "traj_lengths": np.array([20, 30])}
    folder.mkdir()
    np.savez_compressed(folder / "train.npz", states=columns[0], actions=columns[1], **more)
    np.savez_compressed(folder / "normalization.npz", **bounds)
    return states, actions, columns


def test_scaling_is_undone(tmp_path):
    states, actions, scaled = random_files(tmp_path / "f")
    read = load(tmp_path / "f")
    # Exact but for the rounding to float32 (one unit in its last place) and that of DPPO's own division.
    np.testing.assert_allclose(read.obs["state"], states, rtol=2e-7, atol=1e-9)
    np.testing.assert_allclose(read.action, actions, rtol=2e-7, atol=1e-9)
    kept = load(tmp_path / "f" / "train.npz", values="stored")
    np.testing.assert_array_equal(kept.obs["state"], scaled[0].astype(np.float32))
    np.testing.assert_array_equal(kept.action, scaled[1].astype(np.float32))
    assert not read.has_final.any()


def test_losses_are_named_once(tmp_path):
    folder = files.dppo(tmp_path / "f", rewards=np.full(5, 0.1), speed=np.zeros(5))
    with pytest.warns(DataWarning) as caught:
        load(folder)
    (warning,) = caught
    assert str(warning.message).endswith("not carried over: speed; rounded to float32: obs.state, action, reward")


def test_rows_are_those_of_dppos_q_learning_dataset(tmp_path):
    random_files(tmp_path / "f")
    read = load(tmp_path / "f")
    # It leaves out the last row of every trajectory that has no terminal there, for want of a successor.
    _, known = read.next_obs(torch.arange(50))
    assert (known | read.terminated).sum() == 49
    assert read.terminated.nonzero().flatten().tolist() == [19]
    assert read.truncated.nonzero().flatten().tolist() == [49]


def test_without_terminals_the_reader_asks(tmp_path):
    path = files.dppo(tmp_path / "f", ended=False)
    for options in ({}, {"ends": "end"}):
        with pytest.raises(DataError, match="say ends= one of truncated, terminated, success"):
            load(path, **options)
    cut, solved = load(path, ends="truncated"), load(path, ends="success")
    assert (cut.truncated.sum(), cut.terminated.sum(), cut.success.any()) == (2, 0, False)
    assert (solved.truncated.sum(), solved.terminated.sum(), solved.success.all()) == (0, 2, True)
    with pytest.raises(DataError, match="leave out the option 'ends'"):
        load(files.dppo(tmp_path / "g"), ends="truncated")


def test_prefixes_and_validation_files(tmp_path):
    folder = files.dppo(tmp_path / "f")
    (folder / "train.npz").rename(folder / "max_5_val.npz")
    with pytest.raises(DataError, match=r"no max_5_normalization\.npz"):
        load(folder / "max_5_val.npz")
    (folder / "normalization.npz").rename(folder / "max_5_normalization.npz")
    assert load(folder / "max_5_val.npz").obs["state"][-1].item() == pytest.approx(11)


def test_unscaled_files(tmp_path):
    folder = files.dppo(tmp_path / "f", scaled=False)
    with pytest.raises(DataError, match=r"no normalization\.npz .* values=stored"):
        load(folder)
    assert load(folder, values="stored").obs["state"].flatten().tolist() == [0, 1, 2, 10, 11]
    files.dppo(tmp_path / "g")
    (tmp_path / "g" / "normalization.npz").rename(folder / "normalization.npz")
    with pytest.raises(DataError, match=r"not in \[-1, 1\]"):
        load(folder)


@pytest.mark.parametrize("channels_first", [False, True])
def test_images_of_two_cameras(tmp_path, channels_first):
    images = np.random.default_rng(0).integers(256, size=(5, 4, 7, 6)).astype(np.uint8)
    stored = np.moveaxis(images, -1, 1) if channels_first else images
    path = files.dppo(tmp_path / "f", images=np.ascontiguousarray(stored))
    with pytest.raises(DataError, match="say cameras="):
        load(path)
    with pytest.raises(DataError, match="say cameras="):
        load(path, cameras="front")
    read = load(path, cameras="front,wrist")
    np.testing.assert_array_equal(read.obs["images.front"], images[..., :3])
    np.testing.assert_array_equal(read.obs["images.wrist"], images[..., 3:])
    assert read.final_obs["images.wrist"].shape == (2, 4, 7, 3)
    with pytest.raises(DataError, match="leave out the option 'cameras'"):
        load(files.dppo(tmp_path / "g"), cameras="front")


SPOILT = {
    "missing": ({"states": None}, "there is no array 'states'"),
    "no lengths": ({"traj_lengths": None}, "there is no array 'traj_lengths'"),
    "lengths": ({"traj_lengths": np.array([3, 3])}, "add up to 6; there are 5 rows"),
    "zero": ({"traj_lengths": np.array([3, 0, 2])}, "at least 1"),
    "negative": ({"traj_lengths": np.array([7, -2])}, "at least 1"),
    "overflow": ({"traj_lengths": np.array([2**63 - 1, 2**63 - 1, 7])}, "there are 5 rows"),
    "float": ({"traj_lengths": np.array([3.0, 2.0])}, "whole numbers"),
    "ragged": ({"actions": np.zeros((4, 1))}, "actions has shape"),
    "ragged images": ({"images": np.zeros((4, 4, 4, 3), np.uint8)}, "images have shape"),
    "float images": ({"images": np.zeros((5, 4, 4, 3))}, "must be uint8"),
    "flat": ({"states": np.zeros(5)}, "must be floats"),
    "integers": ({"states": np.zeros((5, 1), int)}, "must be floats"),
    "nan": ({"rewards": np.full(5, np.nan)}, "reward is not finite"),
    "nan state": ({"states": np.full((5, 1), np.nan)}, r"not in \[-1, 1\]"),
    "mid terminal": ({"terminals": np.arange(5) == 1}, "terminal row 1 is not the last"),
    "other width": ({"states": np.zeros((5, 2))}, r"obs_min \(1,\)"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_files_get_one_clear_error(tmp_path, name):
    changed, words = SPOILT[name]
    path = files.dppo(tmp_path / "f", **changed)
    with pytest.raises(DataError, match=words) as caught:
        load(path, **({"cameras": "front"} if "images" in changed else {}))
    assert str(path) in str(caught.value)


def test_a_pickle_of_that_name_is_refused(tmp_path):
    # DPPO's first scripts pickled a dict into train.npz.
    (tmp_path / "train.npz").write_bytes(b"\x80\x04\x95\x00.")
    with pytest.raises(DataError, match="not a zip archive"):
        load(tmp_path)
    with pytest.raises(DataError, match="there is no file"):
        load(tmp_path / "val.npz")
