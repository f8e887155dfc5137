import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robopol.data import load_episodes, save_episodes
from robopol.data.formats import budget
from robopol.errors import DataError, DataWarning
from robopol.evaluation import recorded_world

pytestmark = pytest.mark.filterwarnings("ignore::robopol.errors.DataWarning")


def foreign(path: Path, lengths=(3, 2), done_mode=2, names=None, next_obs=True) -> Path:
    """A file as robomimic's own scripts write it: float64, no robopol columns; even demos succeed."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        args = {"env_name": "Lift", "type": 1, "env_version": "1.4.1", "env_kwargs": {"control_freq": 20}}
        data.attrs["env_args"] = json.dumps(args)
        for index, length in enumerate(lengths):
            demo = data.create_group(names[index] if names else f"demo_{index}")
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = f"<mujoco model='{index % 2}'/>"
            rewards = np.zeros(length)
            rewards[-1] = index % 2 == 0
            ends = np.zeros(length)
            ends[-1] = 1
            demo["actions"] = np.full((length, 2), index / 100)
            demo["states"] = np.arange(length * 4.0).reshape(length, 4)
            demo["rewards"] = rewards
            demo["dones"] = {0: rewards, 1: ends, 2: np.maximum(rewards, ends)}[done_mode].astype(int)
            counted = 10.0 * index + np.arange(length + 1.0)[:, None]
            image = np.broadcast_to(counted[:, None, None] % 256, (length + 1, 4, 4, 3)).astype(np.uint8)
            for group, rows in (("obs", slice(0, -1)), ("next_obs", slice(1, None)))[: 1 + next_obs]:
                demo[f"{group}/object"] = counted[rows]
                demo[f"{group}/eef_pos"] = np.repeat(-counted[rows], 3, axis=1)
                demo[f"{group}/agentview_image"] = image[rows]
    return path


def test_golden_survives(golden, tmp_path):
    save_episodes(golden, tmp_path / "golden.hdf5")
    read = load_episodes(tmp_path / "golden.hdf5")
    assert read.equal(golden)
    assert read.next_obs(torch.arange(5))[0]["state"].flatten().tolist() == [1, 2, 3, 11, 12]


def test_nothing_is_lost(make_episodes, tmp_path):
    for images in (False, True):
        for states in (False, True):
            episodes = make_episodes([3, 1, 4, 2, 5], images=images, states=states)
            save_episodes(episodes, f"robomimic:{tmp_path}/file")
            assert load_episodes(f"robomimic:{tmp_path}/file").equal(episodes)
    assert os.listdir(tmp_path) == ["file"]


def test_twelve_demos_come_in_the_order_of_their_numbers(make_episodes, tmp_path):
    episodes = make_episodes(range(1, 13))
    save_episodes(episodes, tmp_path / "twelve.hdf5")
    assert load_episodes(tmp_path / "twelve.hdf5").lengths.tolist() == list(range(1, 13))


def test_robomimic_opens_it(make_episodes, tmp_path):
    pytest.importorskip("robomimic")
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.utils.dataset import SequenceDataset

    every = make_episodes([3, 4, 2, 5, 3], images=True, states=True)
    episodes = every.select([0, 1, 3, 4])  # robomimic wants every successor
    path = tmp_path / "ours.hdf5"
    save_episodes(episodes, f"{path}?valid=0.3")
    obs_utils.initialize_obs_modality_mapping_from_dict({"low_dim": ["state"], "rgb": ["front_image"]})
    for filter, part in zip(("train", "valid"), episodes.split(0.3, seed=0), strict=True):
        dataset = SequenceDataset(
            hdf5_path=str(path),
            obs_keys=("state", "front_image"),
            dataset_keys=("actions", "rewards", "dones", "states"),
            filter_by_attribute=filter,
        )
        assert len(dataset) == part.num_steps
        following, _ = part.next_obs(torch.arange(part.num_steps))
        for row in range(part.num_steps):
            item = dataset[row]
            np.testing.assert_array_equal(item["obs"]["state"][0], part.obs["state"][row])
            np.testing.assert_array_equal(item["next_obs"]["state"][0], following["state"][row])
            np.testing.assert_array_equal(item["obs"]["front_image"][0], part.obs["images.front"][row])
            np.testing.assert_array_equal(item["actions"][0], part.action[row])
            assert item["rewards"][0] == part.reward[row]
            assert item["dones"][0] == part.terminated[row]
        assert load_episodes(f"{path}?filter={filter}").equal(part)


@pytest.mark.parametrize(
    ("done_mode", "dones", "terminated", "truncated"),
    [(0, "success", [2], [4]), (1, "end", [], [2, 4]), (2, "both", [2], [4])],
)
def test_foreign_dones(tmp_path, done_mode, dones, terminated, truncated):
    path = foreign(tmp_path / "f.hdf5", done_mode=done_mode)
    read = load_episodes(f"{path}?dones={dones}")
    assert read.terminated.nonzero().flatten().tolist() == terminated
    assert read.truncated.nonzero().flatten().tolist() == truncated
    assert read.success.tolist() == [True, False]
    assert read.equal(load_episodes(path, dones=dones))


def test_foreign_columns(tmp_path):
    read = load_episodes(f"{foreign(tmp_path / 'f.hdf5')}?dones=both")
    assert set(read.obs) == {"object", "eef_pos", "images.agentview"}
    assert read.obs["object"].flatten().tolist() == [0, 1, 2, 10, 11]
    assert read.final_obs["object"].flatten().tolist() == [3, 12]
    assert read.obs["images.agentview"].dtype == torch.uint8
    assert read.final_obs["images.agentview"][:, 0, 0, 0].tolist() == [3, 12]
    assert read.states.dtype == torch.float64
    assert [read.meta.models[m] for m in read.model.tolist()] == [
        "<mujoco model='0'/>",
        "<mujoco model='1'/>",
    ]
    assert read.meta.env_id == "robosuite/Lift"
    assert read.meta.versions == {"robosuite": "1.4.1"}
    assert read.meta.control_hz == 20
    assert read.way.tolist() == read.seed.tolist() == [-1, -1]


def test_another_version_of_the_simulator_is_said(tmp_path, monkeypatch):
    read = load_episodes(f"{foreign(tmp_path / 'f.hdf5')}?dones=both")
    world = SimpleNamespace(spec=SimpleNamespace(obs_shapes={}), model=None, loads_models=False)
    for installed, said in (("1.5.0", True), ("1.4.1", False)):
        monkeypatch.setattr(recorded_world, "version", {"robosuite": installed}.get)
        words = f"recorded with robosuite 1.4.1, here is {installed}"
        assert (words in recorded_world.differences(read, world)) == said


@pytest.mark.parametrize(
    ("env_id", "told"),
    [
        ("robosuite/Lift", (1, "Lift", "1.4")),
        ("ig_momart/Table", (3, "Table", "2.0")),
        ("Hopper-v5", (2, "Hopper-v5", "1.1")),
    ],
)
def test_env_args_name_the_version_of_the_right_package(golden, tmp_path, env_id, told):
    versions = {"robosuite": "1.4", "igibson": "2.0", "gymnasium": "1.1"}
    meta = golden.meta.model_copy(update={"env_id": env_id, "versions": versions})
    save_episodes(replace(golden, meta=meta), tmp_path / "f.hdf5")
    with h5py.File(tmp_path / "f.hdf5") as file:
        args = json.loads(file["data"].attrs["env_args"])
    assert (args["type"], args["env_name"], args["env_version"]) == told


def only_warning(caught) -> str:
    """The one warning, which names the line of the caller."""
    (warning,) = caught
    assert warning.filename == __file__
    return str(warning.message)


def test_losses_are_named_once(tmp_path):
    path = foreign(tmp_path / "f.hdf5")
    with pytest.warns(DataWarning) as caught:
        load_episodes(f"{path}?dones=both")
    assert only_warning(caught) == f"{path}: rounded to float32: actions"
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            demo["actions_abs"] = demo["actions"][()]
            demo.attrs["ep_meta"] = "{}"
        file["mask/train"] = np.array([b"demo_0"])
        args = json.loads(file["data"].attrs["env_args"]) | {"lang": "lift"}
        file["data"].attrs["env_args"] = json.dumps(args)
        file["data"].attrs["date"] = "today"
        del file["data/demo_1/next_obs/object"]
        file["data/demo_1/next_obs/object"] = np.array([[11.0], [0.1]])
    with pytest.warns(DataWarning) as caught:
        load_episodes(f"{path}?dones=both")
    assert only_warning(caught) == (
        f"{path}: not carried over: env_args/lang, mask/train, attribute date, actions_abs, attribute ep_meta; "
        "rounded to float32: actions, obs/object"
    )
    with pytest.warns(DataWarning) as caught:
        load_episodes(f"{path}?dones=both&filter=train")
    assert "mask" not in only_warning(caught)


def test_what_robopol_wrote_is_read_in_silence(make_episodes, tmp_path):
    episodes = make_episodes([3, 2, 1], states=True)
    with pytest.warns(DataWarning) as caught:
        save_episodes(episodes, tmp_path / "f.hdf5")
    assert "next_obs of 1 of 3 episodes, whose last observation is unknown" in only_warning(caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_episodes(tmp_path / "f.hdf5").equal(episodes)
        save_episodes(episodes.select([0, 1]), tmp_path / "f.hdf5")


def test_foreign_file_becomes_ours(tmp_path):
    read = load_episodes(f"{foreign(tmp_path / 'f.hdf5')}?dones=both")
    save_episodes(read, tmp_path / "ours.hdf5")
    assert load_episodes(tmp_path / "ours.hdf5").equal(read)
    with h5py.File(tmp_path / "ours.hdf5") as file:
        assert json.loads(file["data"].attrs["env_args"])["env_name"] == "Lift"
        assert file["data/demo_1"].attrs["model_file"] == "<mujoco model='1'/>"


def test_low_dim_keys_join_to_one_state(tmp_path):
    read = load_episodes(f"{foreign(tmp_path / 'f.hdf5')}?dones=both&state=object,eef_pos")
    assert set(read.obs) == {"state", "images.agentview"}
    assert read.obs["state"][4].tolist() == [11, -11, -11, -11]
    assert read.final_obs["state"][0].tolist() == [3, -3, -3, -3]
    with pytest.raises(DataError, match=r"'objekt' \(did you mean object\?\)"):
        load_episodes(f"{tmp_path / 'f.hdf5'}?dones=both&state=objekt")


def test_missing_successors_are_not_made_up(tmp_path):
    read = load_episodes(f"{foreign(tmp_path / 'f.hdf5', next_obs=False)}?dones=both")
    assert not read.has_final.any()
    assert read.next_obs(torch.arange(5))[1].tolist() == [True, True, False, True, False]


def test_an_old_file_survives_a_write_that_fails(golden, tmp_path):
    path = tmp_path / "kept.hdf5"
    save_episodes(golden, path)
    with pytest.raises(DataError, match="at least one episode"):
        save_episodes(golden.select([]), path)
    with pytest.raises(DataError, match=r"\[0, 1\)"):
        save_episodes(golden, f"{path}?valid=2")
    assert os.listdir(tmp_path) == ["kept.hdf5"]
    assert load_episodes(path).equal(golden)


def spoil(path: Path, change) -> Path:
    with h5py.File(path, "r+") as file:
        change(file["data"])
    return path


def replaced(name, value):
    def change(data):
        del data[name]
        data[name] = value

    return change


def huge(data):
    del data["demo_0/actions"]
    data.create_dataset("demo_0/actions", (3, 10**12), "f8", chunks=(1, 1024))


def outside(data):
    del data["demo_0/actions"]
    data.create_dataset("demo_0/actions", (3, 2), "f8", external=[("/etc/hostname", 0, 48)])


def virtual(data):
    layout = h5py.VirtualLayout((3, 2), "f8")
    layout[:] = h5py.VirtualSource("other.hdf5", "x", (3, 2))
    del data["demo_0/actions"]
    data.create_virtual_dataset("demo_0/actions", layout)


def small_chunk(data):
    """One that is smaller than its checksum, on which the HDF5 library crashes."""
    del data["demo_0/rewards"]
    rewards = data.create_dataset("demo_0/rewards", data=np.zeros(3), chunks=(3,), fletcher32=True)
    rewards.id.write_direct_chunk((0,), b"x")


def objects(data):
    del data["demo_0/actions"]
    data.create_dataset("demo_0/actions", (3, 2), h5py.vlen_dtype(np.float64))


SPOILT = {
    "link out": (replaced("demo_0/actions", h5py.ExternalLink("o.hdf5", "/x")), "demo_0/actions is a link"),
    "link inside": (replaced("demo_0/actions", h5py.SoftLink("/data/demo_1/actions")), "is a link"),
    "group link": (replaced("demo_0", h5py.ExternalLink("o.hdf5", "/x")), "data/demo_0 is a link"),
    "external": (outside, "in another file"),
    "virtual": (virtual, "in another file"),
    "huge": (huge, "declares"),
    "small chunk": (small_chunk, "data/demo_0/rewards has a chunk of 1 bytes"),
    "objects": (objects, "holds object"),
    "opaque": (replaced("demo_0/actions", np.zeros((3, 2), "V8")), "only plain numbers"),
    "text": (replaced("demo_0/actions", np.full((3, 2), b"x")), "only plain numbers"),
    "scalar": (replaced("demo_0/actions", 1.0), "not an array"),
    "group": (lambda data: (data.pop("demo_0/actions"), data.create_group("demo_0/actions")), "not an array"),
    "missing": (lambda data: data.pop("demo_1/rewards"), "there is no 'data/demo_1/rewards'"),
    "no obs": (lambda data: data.pop("demo_1/obs"), "demo_1 has no observations"),
    "some obs": (lambda data: data.pop("demo_1/obs/object"), "must be the same"),
    "some states": (lambda data: data.pop("demo_0/states"), "there is no 'data/demo_0/states'"),
    "ragged": (replaced("demo_1/actions", np.zeros((1, 2))), r"shape \(1, 2\); it must be \(2, 2\)"),
    "wider": (replaced("demo_1/actions", np.zeros((2, 3))), r"shape \(2, 3\); it must be \(2, 2\)"),
    "nan": (replaced("demo_1/actions", np.full((2, 2), np.nan)), "action is not finite in episode 1, row 0"),
    "overflow": (replaced("demo_1/actions", np.full((2, 2), 1e300)), "action is not finite"),
    "dones": (replaced("demo_1/dones", np.array([0, 2])), "dones be 0 or 1"),
    "dense": (replaced("demo_1/rewards", np.array([0.3, 0.4])), "needs rewards of 0 and 1"),
    "no end": (replaced("demo_1/dones", np.array([0, 0])), "1 in every last row"),
    "jump": (replaced("demo_1/obs/object", np.array([[10.0], [99.0]])), "not one trajectory"),
    "num_samples": (lambda data: data["demo_1"].attrs.modify("num_samples", 7), "total"),
    "no length": (lambda data: data["demo_1"].attrs.pop("num_samples"), "num_samples"),
    "empty": (lambda data: data["demo_1"].attrs.modify("num_samples", 0), "at least one step"),
    "half": (lambda data: data.pop("demo_1"), "total"),
    "none": (lambda data: data.clear(), "needs demonstrations"),
    "name": (lambda data: data.move("demo_1", "demo_b"), "demo_<number>"),
    "env_args": (lambda data: data.attrs.modify("env_args", "{"), "f.hdf5"),
    "env type": (lambda data: data.attrs.modify("env_args", "[]"), "f.hdf5"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_files_get_one_clear_error(tmp_path, name):
    change, words = SPOILT[name]
    path = spoil(foreign(tmp_path / "f.hdf5"), change)
    with pytest.raises(DataError, match=words) as caught:
        load_episodes(f"{path}?dones=both")
    assert str(path) in str(caught.value)


def test_small_file_cannot_inflate(tmp_path):
    path = foreign(tmp_path / "f.hdf5", lengths=(3,))
    with h5py.File(path, "r+") as file:
        demo = file["data/demo_0"]
        for name in ("actions", "rewards", "dones", "states"):
            del demo[name]
        demo.attrs["num_samples"] = file["data"].attrs["total"] = 10**8
        for name in ("actions", "rewards", "dones"):
            demo.create_dataset(name, (10**8,), "f4", chunks=(10**6,), compression="gzip")
    with pytest.raises(DataError, match="its size allows"):
        load_episodes(f"{path}?dones=both")


def test_images_need_not_fit_into_memory_and_numbers_must(make_episodes, tmp_path, monkeypatch):
    episodes = make_episodes([30, 30], images=True)
    save_episodes(episodes, tmp_path / "f.hdf5")
    raw = sum(column.nbytes for name, column in episodes.step_columns().items() if "images" not in name)
    for memory, fits in ((4 * raw, True), (raw // 2, False)):
        assert memory < 2 * episodes.obs["images.front"].nbytes + raw  # rows of obs and of next_obs
        monkeypatch.setattr(budget, "total_memory", lambda memory=memory: memory)
        if fits:
            assert load_episodes(tmp_path / "f.hdf5").equal(episodes)
        else:
            with pytest.raises(DataError, match=f"this machine {memory:,}"):
                load_episodes(tmp_path / "f.hdf5")


def test_ambiguity_is_refused(golden, tmp_path):
    path = foreign(tmp_path / "f.hdf5")
    for uri in (str(path), f"{path}?dones=maybe"):
        with pytest.raises(DataError, match="success, end, both"):
            load_episodes(uri)
    with pytest.raises(DataError, match="last rows only"):
        load_episodes(foreign(tmp_path / "g.hdf5", done_mode=0), dones="end")
    save_episodes(golden, tmp_path / "ours.hdf5")
    with pytest.raises(DataError, match="leave out"):
        load_episodes(f"{tmp_path / 'ours.hdf5'}?dones=end")


def test_a_newer_version_is_refused(golden, tmp_path):
    save_episodes(golden, tmp_path / "f.hdf5")
    spoil(tmp_path / "f.hdf5", lambda data: data.file["robopol"].attrs.modify("version", 2))
    with pytest.raises(DataError, match="of version 2; this robopol reads version 1"):
        load_episodes(tmp_path / "f.hdf5")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("lerobat:x", "unknown format 'lerobat'"),
        ("x.csv", "does not tell the format"),
        ("x.hdf5", "there is no file"),
        ("x.hdf5?don=end", r"unknown option 'don' \(did you mean dones\?\)"),
        ("x.hdf5?dones", "name=value"),
        ("x.hdf5?dones=end&dones=end", "comes once"),
    ],
)
def test_bad_uris(uri, words):
    with pytest.raises(DataError, match=words):
        load_episodes(uri)


def test_unknown_filter(golden, tmp_path):
    save_episodes(golden, f"{tmp_path / 'f.hdf5'}?valid=0.5")
    with pytest.raises(DataError, match=r"'trian' \(did you mean train\?\)"):
        load_episodes(tmp_path / "f.hdf5", filter="trian")


@pytest.fixture(scope="module")
def small_files(make_episodes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    save_episodes(make_episodes([3, 2], images=True, states=True), folder / "ours.hdf5")
    foreign(folder / "foreign.hdf5")
    return {name: (folder / f"{name}.hdf5").read_bytes() for name in ("ours", "foreign")}


@pytest.mark.parametrize("name", ["ours", "foreign"])
def test_cut_files_are_refused(small_files, tmp_path, name):
    options = {"dones": "both"} if name == "foreign" else {}
    for keep in range(0, len(small_files[name]), 97):
        (tmp_path / "cut.hdf5").write_bytes(small_files[name][:keep])
        with pytest.raises(DataError, match=r"cut\.hdf5"):
            load_episodes(tmp_path / "cut.hdf5", **options)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bytes_are_noticed_or_harmless(small_files, make_episodes, tmp_path_factory, flips):
    damaged = bytearray(small_files["ours"])
    for where, bits in flips:
        damaged[int(where * len(damaged))] ^= bits
    path = tmp_path_factory.getbasetemp() / "damaged.hdf5"
    path.write_bytes(damaged)
    try:
        episodes = load_episodes(path)
    except DataError:
        return
    assert episodes.equal(make_episodes([3, 2], images=True, states=True))
