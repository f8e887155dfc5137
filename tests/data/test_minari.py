import json
import os
import struct
import sys
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import dataset_files as files
import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robopol.data import load_episodes, save_episodes
from robopol.data.formats import budget
from robopol.data.formats.minari import read
from robopol.data.stats import assess
from robopol.errors import DataError, DataWarning, MissingExtraError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
minari = pytest.importorskip("minari")
from minari.data_collector import EpisodeBuffer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari", "ignore::robopol.errors.DataWarning")

SPACE = gym.spaces.Dict(
    {
        "observation": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
        "desired_goal": gym.spaces.Box(-np.inf, np.inf, (1,), np.float32),
        "achieved_goal": gym.spaces.Dict({"cube": gym.spaces.Box(-np.inf, np.inf, (2, 2), np.float32)}),
        "force": gym.spaces.Box(-np.inf, np.inf, (), np.float32),
        "camera": gym.spaces.Box(0, 255, (40, 32, 3), np.uint8),
        "grey": gym.spaces.Box(0, 255, (32, 36), np.uint8),
        "small": gym.spaces.Box(0, 255, (4, 4, 3), np.uint8),
    }
)
ACTION = gym.spaces.Box(-1, 2, (2,), np.float32)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def buffer(first: int, length: int, terminal: bool, infos="success", **more) -> EpisodeBuffer:
    """The observations count on from ``first``; images are of one brightness."""
    counted = np.arange(first, first + length + 1)

    def shaped(*shape):
        return np.broadcast_to(counted.reshape(-1, *[1] * len(shape)), (length + 1, *shape)).copy()

    ended = [False] * (length - 1)
    return EpisodeBuffer(
        observations={
            "observation": shaped(2).astype(np.float32),
            "desired_goal": shaped(1).astype(np.float32),
            "achieved_goal": {"cube": shaped(2, 2).astype(np.float32)},
            "force": counted.astype(np.float32),
            "camera": shaped(40, 32, 3).astype(np.uint8),
            "grey": shaped(32, 36).astype(np.uint8),
            "small": shaped(4, 4, 3).astype(np.uint8),
        },
        actions=np.full((length, 2), first / 100, np.float32),
        rewards=[0.5] * length,
        terminations=[*ended, terminal],
        truncations=[*ended, not terminal],
        infos={infos: np.array([*[False] * length, terminal]), "speed": np.zeros((length + 1, 3))},
        **more,
    )


def by_minari(data_format="hdf5", name="made-v0", jpeg=True, **metadata):
    """The golden episodes, written by Minari itself."""
    minari.create_dataset_from_buffers(
        name,
        [buffer(0, 3, True, seed=7), buffer(10, 2, False, seed=2**63 + 1)],
        observation_space=SPACE,
        action_space=ACTION,
        data_format=data_format,
        jpeg_encoding=jpeg,
        **metadata,
    )
    return minari.storage.datasets_root_dir.get_dataset_path(name)


@pytest.fixture
def written(golden, tmp_path):
    save_episodes(golden, f"minari:{tmp_path}/golden-v0")
    return tmp_path / "golden-v0"


def test_golden_survives(golden, written):
    found = load_episodes(f"minari:{written}")
    assert found.equal(golden)
    assert found.next_obs(torch.arange(5))[0]["state"].flatten().tolist() == [1, 2, 3, 11, 12]


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=12), seed=st.integers(0, 99), flags=st.integers(0, 3))
def test_nothing_is_lost(make_episodes, tmp_path, lengths, seed, flags):
    episodes = make_episodes(lengths, seed=seed, images=bool(flags & 1), states=bool(flags & 2))
    save_episodes(episodes, f"minari:{tmp_path}/any-v0")
    assert load_episodes(f"minari:{tmp_path}/any-v0").equal(episodes)
    assert os.listdir(tmp_path) == ["any-v0"]


def test_minari_opens_it(make_episodes, tmp_path):
    episodes = make_episodes([3, 4, 2, 5], images=True, states=True)
    with pytest.warns(DataWarning, match="of 1 of 4 episodes is unknown"):
        save_episodes(episodes, f"minari:{tmp_path}/lab/reach-v1")
    assert list(minari.list_local_datasets()) == ["lab/reach-v1"]
    dataset = minari.load_dataset("lab/reach-v1")
    assert (dataset.total_episodes, dataset.total_steps) == (4, 14)
    assert dataset.env_spec.id == "robopol/Made-v0"
    assert dataset.action_space == gym.spaces.Box(-1, 1, (2,), np.float32)
    known = [metadata["final_observation_recorded"] for metadata in dataset.storage.get_episode_metadata(range(4))]
    assert known == episodes.has_final.tolist()
    for index, episode in enumerate(dataset):
        rows = slice(int(episodes.starts[index]), int(episodes.starts[index] + episodes.lengths[index]))
        assert dataset.observation_space.contains({key: value[0] for key, value in episode.observations.items()})
        for key, name in (("state", "observation"), ("images.front", "front")):
            values = episode.observations[name]
            np.testing.assert_array_equal(values[:-1], episodes.obs[key][rows])
            if known[index]:
                np.testing.assert_array_equal(values[-1], episodes.final_obs[key][index])
            elif key == "state":
                assert np.isnan(values[-1]).all()
        np.testing.assert_array_equal(episode.actions, episodes.action[rows])
        np.testing.assert_array_equal(episode.rewards, episodes.reward[rows])
        np.testing.assert_array_equal(episode.terminations, episodes.terminated[rows])
        np.testing.assert_array_equal(episode.truncations, episodes.truncated[rows])
        assert episode.infos["success"].tolist() == [False] * len(episode.actions) + [bool(episodes.success[index])]
        assert repr(episode)


@pytest.mark.parametrize("jpeg", [True, False])
@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_what_minari_wrote(data_format, jpeg):
    found = load_episodes(f"minari:{by_minari(data_format, jpeg=jpeg)}")
    counted = torch.tensor([0, 1, 2, 10, 11])
    assert {key: tuple(column.shape[1:]) for key, column in found.obs.items()} == {
        "state": (2,),
        "goal": (1,),
        "achieved_goal.cube": (2, 2),
        "force": (1,),
        "images.camera": (40, 32, 3),
        "images.grey": (32, 36, 1),
        "images.small": (4, 4, 3),
    }
    for key, column in found.obs.items():
        assert column.dtype == (torch.uint8 if key.startswith("images.") else torch.float32)
        assert (column.flatten(1) == counted[:, None]).all(), key  # one brightness survives JPEG
        assert (found.final_obs[key].flatten(1) == torch.tensor([[3], [12]])).all(), key
    assert found.terminated.tolist() == [False, False, True, False, False]
    assert found.truncated.tolist() == [False, False, False, False, True]
    assert found.has_final.tolist() == [True, True]
    assert found.success.tolist() == [True, False]
    assert found.seed.tolist() == [7, -1]  # the second has more bits than an episode can keep
    assert found.reward.tolist() == [0.5] * 5
    assert found.action[3:].tolist() == torch.full((2, 2), 0.1).tolist()
    assert (found.meta.action_low, found.meta.action_high) == ((-1, -1), (2, 2))
    assert found.meta.versions == {}  # of the simulator; Minari's own is none


def test_losses_are_named(tmp_path):
    buffers = [replace(buffer(0, 3, True), rewards=[0.1] * 3, options={"level": 2})]
    minari.create_dataset_from_buffers("made-v0", buffers, observation_space=SPACE, action_space=ACTION)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_episodes(f"minari:{tmp_path}/made-v0")
    (warning,) = caught
    assert "not carried over: options, infos/speed; rounded to float32: rewards" in str(warning.message)
    assert warning.filename == __file__
    more = by_minari(name="more-v0", requirements=["mujoco==2.3.7", "numpy>=1.26"], author="Somebody")
    describe(more, ref_max_score=3.0)
    with pytest.warns(DataWarning) as caught:
        load_episodes(f"minari:{more}")
    (warning,) = caught
    assert "over: seeds of more than 63 bits, ref_max_score, requirement numpy>=1.26, infos/speed, author" in str(
        warning.message
    )


def test_versions_and_reference_scores_survive(tmp_path):
    written = by_minari(requirements=["mujoco==2.3.7", "gymnasium-robotics[extra] == 1.2.4", "numpy>=1.26"])
    describe(written, ref_min_score=0.5, ref_max_score=2.5)
    found = load_episodes(f"minari:{written}")
    assert found.meta.versions == {"mujoco": "2.3.7", "gymnasium-robotics": "1.2.4"}
    assert found.meta.reference_returns == (0.5, 2.5)
    assessed = assess(found.without_images())
    assert assessed["references"] == {"random": 0.5, "expert": 2.5, "from": "the dataset"}
    assert assessed["score"] == 100 * assessed["tq"] == pytest.approx(100 * (1.25 - 0.5) / 2)
    save_episodes(found, f"minari:{tmp_path}/ours-v0")
    os.remove(tmp_path / "ours-v0/data/robopol.safetensors")
    again = load_episodes(f"minari:{tmp_path}/ours-v0").meta
    assert (again.versions, again.reference_returns) == (found.meta.versions, (0.5, 2.5))
    assert minari.load_dataset("ours-v0").storage.metadata["requirements"][0] == "mujoco==2.3.7"


def test_the_word_that_older_versions_wrote_for_no_seed():
    written = by_minari()
    with h5py.File(written / "data/main_data.hdf5", "r+") as file:
        file["episode_0"].attrs["seed"] = str(None)
    assert load_episodes(f"minari:{written}").seed.tolist() == [-1, -1]


@pytest.mark.parametrize(("data_format", "jpeg"), [("hdf5", True), ("hdf5", False), ("arrow", True), ("parquet", True)])
def test_images_need_not_fit_into_memory_and_numbers_must(tmp_path, monkeypatch, data_format, jpeg):
    uri = f"minari:{by_minari(data_format, jpeg=jpeg)}"
    images = sum(column.nbytes for key, column in load_episodes(uri).obs.items() if key.startswith("images."))
    monkeypatch.setattr(budget, "total_memory", lambda: images // 2)
    assert load_episodes(uri, cache=tmp_path / "cache").num_steps == 5
    monkeypatch.setattr(budget, "total_memory", lambda: 60)
    with pytest.raises(DataError, match="this machine 60"):
        load_episodes(uri)


def test_success_under_its_other_name(tmp_path):
    buffers = [buffer(0, 3, True, infos="is_success"), buffer(0, 3, True, infos="else")]
    for name, single in zip(("one-v0", "two-v0"), buffers, strict=True):
        minari.create_dataset_from_buffers(name, [single], observation_space=SPACE, action_space=ACTION)
    assert load_episodes(f"minari:{tmp_path}/one-v0").success.tolist() == [True]
    assert load_episodes(f"minari:{tmp_path}/two-v0").success.tolist() == [False]


def test_the_environment_is_only_quoted(written):
    os.remove(written / "data/robopol.safetensors")
    spec = {"id": "Evil-v0", "entry_point": "os:abort", "kwargs": {"size": 3}, "additional_wrappers": []}
    describe(written, env_spec=json.dumps(spec), ref_min_score=1.5)
    with pytest.warns(DataWarning, match="not carried over: ref_min_score"):
        found = load_episodes(f"minari:{written}")
    assert (found.meta.env_id, found.meta.env_options) == ("Evil-v0", {"size": 3})


def test_a_single_observation(tmp_path):
    for name, space in (
        ("state", gym.spaces.Box(-1, 1, (3,))),
        ("images.pixels", gym.spaces.Box(0, 255, (32, 40, 3), np.uint8)),
    ):
        observations = np.ones((3, *space.shape), space.dtype)
        single = replace(buffer(0, 2, True), observations=observations)
        dataset = f"{name.partition('.')[0]}-v0"
        minari.create_dataset_from_buffers(dataset, [single], observation_space=space, action_space=ACTION)
        found = load_episodes(f"minari:{tmp_path}/{dataset}")
        assert list(found.obs) == [name]
        assert (found.obs[name] == 1).all()


def test_twelve_episodes_come_in_the_order_of_their_numbers(make_episodes, tmp_path):
    save_episodes(make_episodes(range(1, 13)), f"minari:{tmp_path}/twelve-v0")
    os.remove(tmp_path / "twelve-v0/data/robopol.safetensors")
    describe(tmp_path / "twelve-v0")
    with h5py.File(tmp_path / "twelve-v0/data/main_data.hdf5", "r+") as file:
        for index in range(12):
            final = file[f"episode_{index}/observations"]
            final[-1] = 0
    assert load_episodes(f"minari:{tmp_path}/twelve-v0").lengths.tolist() == list(range(1, 13))


def test_a_folder_goes_before_an_id(golden, make_episodes, tmp_path, monkeypatch):
    save_episodes(golden, f"minari:{tmp_path}/lab/made-v0")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert read(Path("lab/made-v0")).equal(golden)
    other = make_episodes([2, 2])
    save_episodes(other, "minari:lab/made-v0")
    assert read(Path("lab/made-v0")).equal(other)
    assert read(tmp_path / "lab/made-v0/data").equal(golden)
    with pytest.raises(DataError, match=f"none of that id in {tmp_path}"):
        read(Path("lab/made-v1"))
    with pytest.raises(DataError, match="there is no Minari dataset"):
        read(Path("../lab/made-v1"))


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (gym.spaces.Discrete(4), ACTION, "observation is Discrete"),
        (gym.spaces.Dict({"mission": gym.spaces.Text(9)}), ACTION, "observation 'mission' is Text"),
        (gym.spaces.Tuple((ACTION,)), ACTION, "observation is Tuple"),
        (ACTION, gym.spaces.Discrete(4), "action space"),
        (ACTION, gym.spaces.Box(-1, 1, (2, 2)), "Box of one axis"),
        (gym.spaces.Dict({"state": ACTION, "observation": ACTION}), ACTION, "the same key"),
    ],
)
def test_other_spaces_are_refused(written, observation, action, words):
    from minari.serialization import serialize_space

    os.remove(written / "data/robopol.safetensors")
    describe(written, observation_space=serialize_space(observation), action_space=serialize_space(action))
    with pytest.raises(DataError, match=words):
        load_episodes(f"minari:{written}")


def test_steps_added_by_minari_are_noticed(written, golden):
    dataset = minari.MinariDataset(written / "data")
    more = EpisodeBuffer(
        observations=np.zeros((3, 1), np.float32),
        actions=np.zeros((2, 1), np.float32),
        rewards=[0, 0],
        terminations=[0, 0],
        truncations=[0, 1],
    )
    dataset.update_dataset_from_buffer([more])
    with pytest.raises(DataError, match=r"another program changed them; delete robopol\.safetensors"):
        load_episodes(f"minari:{written}")
    os.remove(written / "data/robopol.safetensors")
    found = load_episodes(f"minari:{written}")
    assert found.lengths.tolist() == [3, 2, 2]
    assert torch.equal(found.obs["state"][:5], golden.obs["state"])


def test_names_that_cannot_be_kept(golden, make_episodes, tmp_path):
    for path in ("golden", "x/gol den-v0"):
        with pytest.raises(DataError, match="no id of a Minari dataset"):
            save_episodes(golden, f"minari:{tmp_path}/{path}")
    obs, final_obs = golden.obs["state"], golden.final_obs["state"]
    for key in ("observation", "a/b", ".", "desired_goal"):
        odd = replace(golden, obs={key: obs}, final_obs={key: final_obs})
        with pytest.raises(DataError, match="has no name of its own"):
            save_episodes(odd, f"minari:{tmp_path}/odd-v0")
    with pytest.raises(DataError, match="at least one episode"):
        save_episodes(golden.select([]), f"minari:{tmp_path}/odd-v0")
    assert os.listdir(tmp_path) == []


def test_other_folders_are_not_replaced(golden, make_episodes, written, tmp_path):
    (tmp_path / "photos-v0").mkdir()
    (tmp_path / "photos-v0/one.jpg").touch()
    with pytest.raises(DataError, match="is not a dataset"):
        save_episodes(golden, f"minari:{tmp_path}/photos-v0")
    save_episodes(make_episodes([2]), f"minari:{written}")
    assert len(load_episodes(f"minari:{written}")) == 1
    assert sorted(os.listdir(tmp_path)) == ["golden-v0", "photos-v0"]


def test_pyarrow_is_asked_for(monkeypatch, tmp_path):
    by_minari("arrow")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pyarrow.*robopol\[lerobot\]"):
        load_episodes(f"minari:{tmp_path}/made-v0")


def describe(folder, **changes):
    path = folder / "data/metadata.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in metadata.items() if value is not None}))


def put(name, value):
    def change(folder):
        with h5py.File(folder / "data/main_data.hdf5", "r+") as file:
            del file[name]
            if value is not None:
                file[name] = value

    return change


def huge(folder):
    with h5py.File(folder / "data/main_data.hdf5", "r+") as file:
        del file["episode_0/actions"]
        file.create_dataset("episode_0/actions", (3, 10**12), "f8", chunks=(1, 1024))


def outside(folder):
    with h5py.File(folder / "data/main_data.hdf5", "r+") as file:
        del file["episode_0/actions"]
        file.create_dataset("episode_0/actions", (3, 1), "f8", external=[("/etc/hostname", 0, 24)])


def text_file(name, text):
    return lambda folder: (folder / "data" / name).write_text(text)


SPOILT = {
    "no metadata": (lambda folder: os.remove(folder / "data/metadata.json"), "no Minari dataset"),
    "no data": (lambda folder: os.remove(folder / "data/main_data.hdf5"), "main_data"),
    "metadata": (text_file("metadata.json", "{"), "golden-v0"),
    "metadata list": (text_file("metadata.json", "[]"), "golden-v0"),
    "no space": (lambda folder: describe(folder, observation_space=None), "missing key: observation_space"),
    "space": (lambda folder: describe(folder, observation_space="{}"), "observation is None"),
    "shape": (
        lambda folder: describe(folder, observation_space='{"type": "Box", "shape": [2], "dtype": "f4"}'),
        "it must be",
    ),
    "format": (lambda folder: describe(folder, data_format="pickle"), "data format is 'pickle'"),
    "steps": (lambda folder: describe(folder, total_steps=6), "says 6"),
    "fewer": (lambda folder: describe(folder, total_episodes=1), "says 5"),
    "more": (lambda folder: describe(folder, total_episodes=3), "there is no 'episode_2'"),
    "none": (lambda folder: describe(folder, total_episodes=0, total_steps=0), "0 episodes"),
    "missing": (put("episode_1/actions", None), "no 'episode_1/actions'"),
    "ragged": (put("episode_1/actions", np.zeros((1, 1))), r"shape \(1, 1\); it must be \(2, 1\)"),
    "short": (put("episode_1/observations", np.zeros((2, 1))), r"shape \(2, 1\); it must be \(3, 1\)"),
    "longer": (put("episode_1/rewards", np.zeros(3)), "has 3 rewards and says it has 2 steps"),
    "nan": (put("episode_1/actions", np.full((2, 1), np.nan)), "action is not finite in episode 1"),
    "overflow": (put("episode_1/rewards", np.full(2, 1e300)), "reward is not finite"),
    "text": (put("episode_1/actions", np.full((2, 1), b"x")), "only plain numbers"),
    "flags": (put("episode_1/terminations", np.array([0, 2])), "terminations must be one 0 or 1"),
    "huge": (huge, "declares"),
    "external": (outside, "in another file"),
    "link": (put("episode_1/actions", h5py.SoftLink("/episode_0/actions")), "is a link"),
    "extras": (text_file("robopol.safetensors", "{}"), "golden-v0"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_datasets_get_one_clear_error(written, name):
    change, words = SPOILT[name]
    change(written)
    with pytest.raises(DataError, match=words) as caught:
        load_episodes(f"minari:{written}")
    assert str(written) in str(caught.value)


def test_cut_files_are_refused(make_episodes, tmp_path):
    save_episodes(make_episodes([3, 2], images=True), f"minari:{tmp_path}/cut-v0")
    for name in ("main_data.hdf5", "metadata.json", "robopol.safetensors"):
        path = tmp_path / "cut-v0/data" / name
        whole = path.read_bytes()
        for keep in range(0, len(whole), max(1, len(whole) // 40)):
            path.write_bytes(whole[:keep])
            with pytest.raises(DataError, match="cut-v0"):
                load_episodes(f"minari:{tmp_path}/cut-v0")
        path.write_bytes(whole)


def test_spoilt_folders_of_arrow_files(tmp_path):
    folder = by_minari("parquet") / "data"
    (part,) = (folder / "1").glob("*.parquet")
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="made-v0"):
        load_episodes(f"minari:{tmp_path}/made-v0")
    part.unlink()
    with pytest.raises(DataError, match="episode 1 has no parquet file"):
        load_episodes(f"minari:{tmp_path}/made-v0")


def test_packed_arrow_files_are_refused():
    folder = by_minari("arrow") / "data"
    (part,) = (folder / "1").glob("*.arrow")
    with pa.ipc.open_file(part) as file:
        table = file.read_all()
    for options, words in ((None, None), (pa.ipc.IpcWriteOptions(compression="zstd"), "is packed; write it again")):
        with pa.ipc.new_file(part, table.schema, options=options) as file:
            file.write_table(table)
        if words is None:
            assert load_episodes(f"minari:{folder.parent}").lengths.tolist() == [3, 2]
        else:
            with pytest.raises(DataError, match=words):
                load_episodes(f"minari:{folder.parent}")


def test_offsets_that_lead_out_of_an_arrow_file_are_noticed(tmp_path):
    folder = files.minari(tmp_path / "made-v0", "arrow") / "data"
    (part,) = (folder / "1").glob("*.arrow")
    with pa.ipc.open_file(part) as file:
        offsets = file.read_all().column("observations").chunk(0).field("camera").buffers()[1].to_pybytes()[:16]
    whole = part.read_bytes()
    assert whole.count(offsets) == 1  # of three images
    part.write_bytes(whole.replace(offsets, offsets[:12] + struct.pack("<i", 2**30)))
    with pytest.raises(DataError, match="offset"):
        load_episodes(f"minari:{folder.parent}")


def test_columns_that_share_their_bytes_cannot_inflate(monkeypatch):
    monkeypatch.setattr(budget, "_RATIO", 0)
    monkeypatch.setattr(budget, "_FLOOR", 100)
    with pytest.raises(DataError, match="its size allows 100"):
        load_episodes(f"minari:{by_minari('arrow')}")


def test_runs_of_a_parquet_file_cannot_inflate(tmp_path):
    folder = files.minari(tmp_path / "runs-v0", "parquet") / "data"
    (part,) = (folder / "1").glob("*.parquet")
    table = pq.read_table(part)
    rows = 2**17
    files.runs(part, table, rows)
    describe(folder.parent, total_steps=3 + rows - 1)
    metadata = json.loads((folder / "1/metadata.json").read_text()) | {"total_steps": rows - 1}
    (folder / "1/metadata.json").write_text(json.dumps(metadata))
    assert part.stat().st_size < 10_000
    with pytest.raises(DataError, match="its size allows"):
        load_episodes(f"minari:{folder.parent}")


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_an_image_that_would_inflate_is_refused(tmp_path, side):
    path = by_minari() / "data/main_data.hdf5"
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(10**6))
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)]
    png = np.frombuffer(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), np.uint8)
    with h5py.File(path, "r+") as file:
        del file["episode_0/observations/camera"]
        file["episode_0/observations/camera"] = np.tile(png, (4, 1))
    with pytest.raises(DataError, match=r"camera, row 0.* is (10000 x 10000 x 3; it must be|not a PNG)"):
        load_episodes(f"minari:{tmp_path}/made-v0")


def test_an_image_of_another_size_is_refused(tmp_path):
    import io

    from PIL import Image

    path = by_minari() / "data/main_data.hdf5"
    for size, mode, words in (((64, 64), "RGB", "it must be 40 x 32 x 3"), ((32, 40), "L", "40 x 32 x 1")):
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, "JPEG")
        data = np.tile(np.frombuffer(buffer.getvalue(), np.uint8), (4, 1))
        with h5py.File(path, "r+") as file:
            del file["episode_0/observations/camera"]
            file["episode_0/observations/camera"] = data
        with pytest.raises(DataError, match=words):
            load_episodes(f"minari:{tmp_path}/made-v0")
