import json
import os
import shutil
import sys
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import dataset_files as files
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robopol.data import load_episodes, save_episodes
from robopol.data.formats import budget, lerobot_writer, parquet
from robopol.data.formats.parquet_pages import pages
from robopol.data.formats.video import VideoWriter
from robopol.errors import DataError, DataWarning, MissingExtraError

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::robopol.errors.DataWarning")

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def bright(make_episodes):
    """Episodes whose image in row i is of brightness 10 * i, large enough for any codec."""
    episodes = make_episodes([3, 4, 2], images=True, states=True)
    images = (10 * torch.arange(9, dtype=torch.uint8)).reshape(-1, 1, 1, 1).expand(-1, 64, 66, 3).contiguous()
    final = (
        torch.where(episodes.has_final[:, None, None, None], 7, 0).expand(-1, 64, 66, 3).to(torch.uint8).contiguous()
    )
    return replace(
        episodes,
        obs=episodes.obs | {"images.front": images},
        final_obs=episodes.final_obs | {"images.front": final},
    )


@pytest.fixture(scope="module")
def originals(bright, tmp_path_factory):
    """Datasets to be copied and spoilt."""
    folder = tmp_path_factory.mktemp("originals")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_episodes(bright, f"lerobot:{folder}/png?images=png")
        save_episodes(bright, f"lerobot:{folder}/h264")
    return folder


@pytest.fixture
def copy(originals, tmp_path):
    """Copies one of them, without what robopol alone knows: a dataset as LeRobot might have written it."""

    def make(name: str, own: bool = False) -> Path:
        shutil.copytree(originals / name, tmp_path / name)
        if not own:
            (tmp_path / name / "robopol.safetensors").unlink()
        return tmp_path / name

    return make


def describe(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def feature(root: Path, name: str, **changes) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[name] = features.get(name, {"shape": [1]}) | changes
    describe(root, features=features)


def column(root: Path, file: str, name: str, values=None) -> None:
    """Replace a column of a parquet file, or take it away."""
    table = pq.read_table(root / file)
    position = table.column_names.index(name) if name in table.column_names else table.num_columns
    table = table.remove_column(position) if position < table.num_columns else table
    table = table if values is None else table.add_column(position, name, pa.array(values))
    pq.write_table(table, root / file)


def test_golden_survives(golden, tmp_path):
    save_episodes(golden, f"lerobot:{tmp_path}/golden?fps=10")
    found = load_episodes(f"lerobot:{tmp_path}/golden")
    assert found.equal(golden)
    assert found.next_obs(torch.arange(5))[0]["state"].flatten().tolist() == [1, 2, 3, 11, 12]


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8), seed=st.integers(0, 99), flags=st.integers(0, 3))
def test_nothing_is_lost(make_episodes, tmp_path, lengths, seed, flags):
    episodes = make_episodes(lengths, seed=seed, images=bool(flags & 1), states=bool(flags & 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_episodes(episodes, f"lerobot:{tmp_path}/any?images=png")
    assert load_episodes(f"lerobot:{tmp_path}/any").equal(episodes)
    assert os.listdir(tmp_path) == ["any"]


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="only Linux tells")
def test_no_thread_becomes_a_real_time_one_by_a_video(tmp_path):
    frames = np.zeros((3, 64, 64, 3), np.uint8)

    def kinds():
        return {os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task")}

    with VideoWriter(tmp_path / "video.mp4", "av1", Fraction(20), 64, 64) as writer:
        writer.add(frames)
        assert kinds() == {os.SCHED_OTHER}
    assert kinds() == {os.SCHED_OTHER}


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_video_changes_images_only_and_says_so(bright, tmp_path, codec):
    with pytest.warns(DataWarning, match=rf"observation\.images\.front are kept as {codec} video") as caught:
        save_episodes(bright, f"lerobot:{tmp_path}/video?images={codec}")
    assert caught[0].filename == __file__
    found = load_episodes(f"lerobot:{tmp_path}/video")
    difference = found.obs["images.front"].int() - bright.obs["images.front"].int()
    assert difference.abs().max() <= 3  # neighbouring frames differ by 10
    assert replace(found, obs=bright.obs).equal(bright)


def test_odd_sizes_and_other_channels(make_episodes, tmp_path):
    episodes = make_episodes([3, 2], images=True)  # 4 x 5
    save_episodes(episodes, f"lerobot:{tmp_path}/odd")
    assert load_episodes(f"lerobot:{tmp_path}/odd").obs["images.front"].shape == (5, 4, 5, 3)
    with pytest.raises(DataError, match="keep the images as PNG"):
        save_episodes(episodes, f"lerobot:{tmp_path}/small?images=av1")
    for channels in (1, 4):
        images = [obs["images.front"][..., :1].repeat(1, 1, 1, channels) for obs in (episodes.obs, episodes.final_obs)]
        other = replace(episodes, obs={"images.front": images[0]}, final_obs={"images.front": images[1]})
        save_episodes(other, f"lerobot:{tmp_path}/png?images=png")
        assert load_episodes(f"lerobot:{tmp_path}/png").equal(other)
        with pytest.raises(DataError, match=f"has {channels} channels and video needs 3"):
            save_episodes(other, f"lerobot:{tmp_path}/video")


def test_the_layout_is_that_of_lerobot(originals):
    """Names, types and paths as LeRobot's documentation of v3.0 and its own writer have them."""
    files = {str(path.relative_to(originals / "h264")) for path in (originals / "h264").rglob("*") if path.is_file()}
    meta = {"meta/info.json", "meta/stats.json", "meta/tasks.parquet", EPISODES}
    assert files == {DATA, VIDEO, "robopol.safetensors", *meta}

    plain = {
        "observation.state": pa.list_(pa.float32(), 3),
        "action": pa.list_(pa.float32(), 2),
        "next.reward": pa.float32(),
        "next.done": pa.bool_(),
        "next.success": pa.bool_(),
        "timestamp": pa.float32(),
        "frame_index": pa.int64(),
        "episode_index": pa.int64(),
        "index": pa.int64(),
        "task_index": pa.int64(),
    }
    table = pq.read_table(originals / "h264" / DATA)
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == plain
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pq.read_table(originals / "png" / DATA)
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == {
        "observation.images.front": image,
        **plain,
    }
    assert table["frame_index"].to_pylist() == [0, 1, 2, 0, 1, 2, 3, 0, 1]
    assert table["timestamp"].to_pylist() == [np.float32(frame / 20) for frame in (0, 1, 2, 0, 1, 2, 3, 0, 1)]

    table = pq.read_table(originals / "h264" / EPISODES)
    places = table.select([name for name in table.column_names if not name.startswith("stats/")]).to_pylist()
    camera = "videos/observation.images.front"
    assert places[1] == {
        "episode_index": 1,
        "tasks": ["pick the cube"],
        "length": 4,
        "data/chunk_index": 0,
        "data/file_index": 0,
        "dataset_from_index": 3,
        "dataset_to_index": 7,
        f"{camera}/chunk_index": 0,
        f"{camera}/file_index": 0,
        f"{camera}/from_timestamp": 0.15,
        f"{camera}/to_timestamp": 0.35,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    kept = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
    named = {f"stats/{name}/{stat}" for name in (*plain, "observation.images.front") for stat in kept}
    assert named == {name for name in table.column_names if name.startswith("stats/")}
    assert table.schema.field("stats/action/mean").type == pa.list_(pa.float64())
    assert table.schema.field("stats/action/count").type == pa.list_(pa.int64())
    deep = pa.list_(pa.list_(pa.list_(pa.float64())))
    assert table.schema.field("stats/observation.images.front/q01").type == deep

    info = json.loads((originals / "h264/meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": 3,
        "total_frames": 9,
        "total_tasks": 3,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 20,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    assert features["action"] == {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    assert features["next.done"] == {"dtype": "bool", "shape": [1], "names": None}
    assert features["observation.images.front"]["dtype"] == "video"
    assert features["observation.images.front"]["shape"] == [64, 66, 3]
    assert features["observation.images.front"]["names"] == ["height", "width", "channels"]


def test_tasks_are_the_index_of_their_table(originals, bright):
    table = pq.read_table(originals / "png/meta/tasks.parquet")
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert table.to_pydict() == {"task_index": [0, 1, 2], "task": ["pick the cube", "place it", ""]}
    assert bright.task.tolist() == [-1, 0, 1]
    assert pq.read_table(originals / "png" / DATA)["task_index"].to_pylist() == [2] * 3 + [0] * 4 + [1] * 2


def test_statistics(originals, bright):
    stats = json.loads((originals / "png/meta/stats.json").read_text())
    action = bright.action.double().numpy()
    wanted = {"min": action.min(0), "max": action.max(0), "mean": action.mean(0), "std": action.std(0)}
    wanted |= {f"q{q:02d}": np.quantile(action, q / 100, axis=0) for q in (1, 10, 50, 90, 99)}
    for name, values in wanted.items():
        np.testing.assert_allclose(stats["action"][name], values, err_msg=name)
    assert stats["action"]["count"] == [9]
    assert stats["timestamp"]["max"] == [pytest.approx(0.15)]
    images = bright.obs["images.front"].double().numpy() / 255
    found = stats["observation.images.front"]
    for name in ("min", "max", "mean", "std"):
        wanted = getattr(images, name)(axis=(0, 1, 2)).reshape(3, 1, 1)
        np.testing.assert_allclose(found[name], wanted, atol=1e-12, err_msg=name)
    assert found["q50"] == [[[40 / 255]]] * 3
    assert found["count"] == [9]
    second = pq.read_table(originals / "png" / EPISODES)["stats/observation.images.front/max"].to_pylist()[1]
    assert second == [[[60 / 255]]] * 3


@pytest.mark.parametrize("images", ["png", "h264"])
def test_several_files(bright, tmp_path, monkeypatch, images):
    for name, value in (("DATA_MB", 0), ("VIDEO_MB", 0), ("CHUNK_FILES", 2)):
        monkeypatch.setattr(lerobot_writer, name, value)
    save_episodes(bright, f"lerobot:{tmp_path}/many?images={images}")
    places = pq.read_table(tmp_path / "many" / EPISODES).to_pylist()
    assert [(row["data/chunk_index"], row["data/file_index"]) for row in places] == [(0, 0), (0, 1), (1, 0)]
    if images == "h264":
        camera = "videos/observation.images.front"
        assert [row[f"{camera}/from_timestamp"] for row in places] == [0, 0, 0]
        assert (tmp_path / "many" / camera / "chunk-001/file-000.mp4").is_file()
    found = load_episodes(f"lerobot:{tmp_path}/many")
    assert (found.obs["images.front"].int() - bright.obs["images.front"].int()).abs().max() <= 3
    assert replace(found, obs=bright.obs).equal(bright)


@pytest.mark.parametrize("version", ["v3.0", "v2.1", "v2.0"])
def test_a_foreign_dataset(bright, copy, version):
    root = copy("h264") if version == "v3.0" else files.lerobot_v21(copy("h264"))
    describe(root, codebase_version=version)
    assert load_episodes(f"lerobot:{root}?ends=truncated&env=Hopper-v5").meta.env_id == "Hopper-v5"
    found = load_episodes(f"lerobot:{root}?ends=truncated")
    assert found.meta.env_id == ""
    for name in ("action", "reward", "lengths"):
        assert torch.equal(getattr(found, name), getattr(bright, name)), name
    assert torch.equal(found.obs["state"], bright.obs["state"])
    assert (found.obs["images.front"].int() - bright.obs["images.front"].int()).abs().max() <= 3
    assert not found.has_final.any()
    assert not found.final_obs["images.front"].any()
    assert found.next_obs(torch.arange(9))[1].tolist() == [1, 1, 0, 1, 1, 1, 0, 1, 0]
    assert [found.meta.tasks[task] for task in found.task.tolist()] == ["", "pick the cube", "place it"]
    assert found.meta.control_hz == 20
    assert found.meta.action_names == ("x", "y")
    assert found.meta.versions == {}  # of a simulator; that of the layout is none
    assert found.seed.tolist() == found.way.tolist() == [-1, -1, -1]


def test_our_own_dataset_says_its_environment_itself(bright, tmp_path):
    save_episodes(bright, f"lerobot:{tmp_path}/ours?images=png")
    with pytest.raises(DataError, match="leave out the option 'env'"):
        load_episodes(f"lerobot:{tmp_path}/ours?env=Hopper-v5")


def test_how_episodes_ended_is_asked_for(copy):
    root = copy("png")
    done, success = [False] * 9, [False] * 9
    done[1] = done[6] = success[6] = True
    column(root, DATA, "next.done", done)
    column(root, DATA, "next.success", success)
    last = [2, 6, 8]
    expected = {  # terminated rows, truncated rows, successful episodes
        "truncated": ([], last, [1]),
        "terminated": (last, [], [1]),
        "success": ([6], [2, 8], [1]),
        "done": ([1, 6], [2, 8], [1]),
    }
    for ends, (terminated, truncated, solved) in expected.items():
        found = load_episodes(f"lerobot:{root}?ends={ends}")
        assert found.terminated.nonzero().flatten().tolist() == terminated, ends
        assert found.truncated.nonzero().flatten().tolist() == truncated, ends
        assert found.success.nonzero().flatten().tolist() == solved, ends
    for uri in (f"lerobot:{root}", f"lerobot:{root}?ends=maybe"):
        with pytest.raises(DataError, match=r"next\.done and next\.success.*truncated .*terminated .*success .*done"):
            load_episodes(uri)


def test_without_outcomes(copy):
    root = copy("png")
    features = json.loads((root / "meta/info.json").read_text())["features"]
    describe(root, features={name: value for name, value in features.items() if not name.startswith("next.")})
    for ends, terminated, success in (
        ("truncated", [], [0] * 3),
        ("terminated", [2, 6, 8], [0] * 3),
        ("success", [2, 6, 8], [1] * 3),
    ):
        found = load_episodes(f"lerobot:{root}?ends={ends}")
        assert found.terminated.nonzero().flatten().tolist() == terminated
        assert found.success.tolist() == success
        assert not found.reward.any()
    for option in ("", "?ends=done"):
        with pytest.raises(DataError, match=r"neither next\.done nor next\.success"):
            load_episodes(f"lerobot:{root}{option}")


def test_our_own_datasets_say_how_they_ended(copy):
    with pytest.raises(DataError, match="leave out the option 'ends'"):
        load_episodes(f"lerobot:{copy('png', own=True)}?ends=done")


def test_losses_are_named(copy):
    root = copy("png")
    column(root, DATA, "observation.state", [[0.1, 2.0, 3.0]] * 9)
    column(root, DATA, "observation.words", ["go"] * 9)
    column(root, DATA, "torque", [1.0] * 9)
    column(root, DATA, "task_index", [0, 0, 1, *[0] * 6])
    feature(root, "observation.state", dtype="float64")
    feature(root, "observation.words", dtype="string")
    feature(root, "torque", dtype="float64")
    describe(root, robot_type="so100")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_episodes(f"lerobot:{root}?ends=done")
    (warning,) = caught
    assert (
        "not carried over: observation.words, torque, robot_type so100, changes of the task within an episode; "
        "rounded to float32: observation.state"
    ) in str(warning.message)
    assert warning.filename == __file__
    assert found.task.tolist() == [0, 0, 0]


def test_features_under_other_names(copy):
    root = copy("png")
    features = json.loads((root / "meta/info.json").read_text())["features"]
    table = pq.read_table(root / DATA)
    renamed = {"observation.images.front": "observation.image", "observation.state": "observation.environment_state"}
    names = [renamed.get(name, name) for name in table.column_names]
    pq.write_table(table.rename_columns(names), root / DATA)
    features = {renamed.get(name, name): value for name, value in features.items()}
    features["observation.image"] |= {"shape": [3, 64, 66], "names": ["channels", "height", "width"]}
    features["action"]["names"] = {"motors": ["u", "v"]}
    describe(root, features=features)
    found = load_episodes(f"lerobot:{root}?ends=done")
    assert {key: tuple(value.shape) for key, value in found.obs.items()} == {
        "images.image": (9, 64, 66, 3),
        "environment_state": (9, 3),
    }
    assert found.meta.action_names == ("u", "v")


def test_some_cameras_only(bright, originals):
    found = load_episodes(f"lerobot:{originals}/h264?cameras=")
    assert list(found.obs) == ["state"]
    assert torch.equal(found.final_obs["state"], bright.final_obs["state"])
    assert load_episodes(f"lerobot:{originals}/png?cameras=front").equal(bright)
    with pytest.raises(DataError, match=r"no camera 'frnt' \(did you mean front\?\)"):
        load_episodes(f"lerobot:{originals}/png?cameras=frnt")


def test_frames_are_found_by_time(bright, copy):
    root = copy("h264", own=True)
    times = np.array(pq.read_table(root / DATA)["timestamp"].to_pylist())
    column(root, DATA, "timestamp", (times + 5e-5).astype(np.float32))
    assert replace(load_episodes(f"lerobot:{root}"), obs=bright.obs).equal(bright)
    column(root, DATA, "timestamp", (times + 0.02).astype(np.float32))
    with pytest.raises(DataError, match=r"has no frame at 0\.0200 s but one at 0\.0500 s"):
        load_episodes(f"lerobot:{root}")
    column(root, DATA, "timestamp", (times + 0.05).astype(np.float32))
    with pytest.raises(DataError, match=r"ends before the frame at 0\.45"):
        load_episodes(f"lerobot:{root}")


def test_rates(golden, make_episodes, tmp_path):
    with pytest.raises(DataError, match="say fps="):
        save_episodes(golden, f"lerobot:{tmp_path}/x")
    with pytest.raises(DataError, match=r"20\.0 steps; leave out"):
        save_episodes(make_episodes([2]), f"lerobot:{tmp_path}/x?fps=20")
    for text in ("0", "-1", "fast", "nan"):
        with pytest.raises(DataError, match="must be a number above 0"):
            save_episodes(golden, f"lerobot:{tmp_path}/x?fps={text}")
    assert os.listdir(tmp_path) == []
    save_episodes(golden, f"lerobot:{tmp_path}/x?fps=12.5")
    (tmp_path / "x/robopol.safetensors").unlink()
    assert load_episodes(f"lerobot:{tmp_path}/x?ends=done").meta.control_hz == 12.5
    seen = make_episodes([3], images=True)
    slow = replace(seen, meta=seen.meta.model_copy(update={"control_hz": 12.5}))
    save_episodes(slow, f"lerobot:{tmp_path}/seen")
    told = json.loads((tmp_path / "seen/meta/info.json").read_text())
    videos = [feature["info"]["video.fps"] for feature in told["features"].values() if "info" in feature]
    assert [told["fps"], *videos] == [12.5, 12.5]


def test_what_cannot_be_written(golden, make_episodes, tmp_path):
    with pytest.raises(DataError, match="at least one episode"):
        save_episodes(make_episodes([2]).select([]), f"lerobot:{tmp_path}/x")
    with pytest.raises(DataError, match="h264, av1, png; got 'gif'"):
        save_episodes(make_episodes([2]), f"lerobot:{tmp_path}/x?images=gif")
    odd = replace(golden, obs={"a/b": golden.obs["state"]}, final_obs={"a/b": golden.final_obs["state"]})
    with pytest.raises(DataError, match="'a/b' cannot be"):
        save_episodes(odd, f"lerobot:{tmp_path}/x?fps=1")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.jpg").touch()
    with pytest.raises(DataError, match="is not a dataset"):
        save_episodes(golden, f"lerobot:{tmp_path}/photos?fps=1")
    assert [path.name for path in tmp_path.rglob("*")] == ["photos", "one.jpg"]


def test_an_old_dataset_survives_a_write_that_fails(bright, copy):
    root = copy("png", own=True)
    grey = replace(
        bright,
        obs={"images.front": bright.obs["images.front"][..., :1].contiguous()},
        final_obs={"images.front": bright.final_obs["images.front"][..., :1].contiguous()},
    )
    with pytest.raises(DataError, match="video needs 3"):
        save_episodes(grey, f"lerobot:{root}")
    assert load_episodes(f"lerobot:{root}").equal(bright)
    assert os.listdir(root.parent) == ["png"]


def test_changes_by_others_are_noticed(copy):
    root = files.lerobot_v21(copy("h264", own=True))
    path = root / "meta/episodes.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    describe(root, total_episodes=2, total_frames=7)
    with pytest.raises(DataError, match=r"another program changed them; delete robopol\.safetensors"):
        load_episodes(f"lerobot:{root}")
    (root / "robopol.safetensors").unlink()
    assert len(load_episodes(f"lerobot:{root}?ends=done")) == 2


def test_pyarrow_is_asked_for(golden, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (load_episodes, lambda uri: save_episodes(golden, uri)):
        with pytest.raises(MissingExtraError, match=r"pyarrow.*robopol\[lerobot\]"):
            call(f"lerobot:{tmp_path}/x")


@pytest.mark.parametrize(
    "template",
    [
        "../data/file-{file_index}.parquet",
        "data/../../x-{chunk_index}",
        "/etc/hostname",
        "",
        "data/{0.__class__}",
        "data/{chunk_index.__class__.__init__.__globals__}.parquet",
        "data/{chunk_index!r}",
        "data/{chunk_index:999999999d}",
        "data/{unknown}",
        "data/{{chunk_index}}",
        "http://elsewhere/{file_index}",
        "data\\..\\..\\x",
    ],
)
def test_templates_stay_plain_and_inside(copy, template):
    root = copy("h264")
    for name in ("data_path", "video_path"):
        describe(root, **{"data_path": lerobot_writer._DATA, "video_path": lerobot_writer._VIDEO, name: template})
        with pytest.raises(DataError, match="the template"):
            load_episodes(f"lerobot:{root}?ends=done")


def removed(name):
    return lambda root: (root / name).unlink()


def cut(name):
    def change(root):
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) * 2 // 3])

    return change


def playlist(root):
    (root / VIDEO).write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n")


def smaller_video(root):
    import av

    with av.open(str(root / VIDEO), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))


SPOILT = {
    "no info": (removed("meta/info.json"), "no LeRobot dataset"),
    "info": (cut("meta/info.json"), "h264"),
    "no features": (lambda root: (root / "meta/info.json").write_text("{}"), "missing key: features"),
    "version": (lambda root: describe(root, codebase_version="v1.6"), r"v1\.6, robopol reads v3\.0, v2\.1, v2\.0"),
    "fps": (lambda root: describe(root, fps=0), "fps"),
    "slash": (lambda root: feature(root, "../x", dtype="float32"), "slash"),
    "frames": (lambda root: describe(root, total_frames=10**15), "10{15} frames"),
    "episodes": (lambda root: describe(root, total_episodes=2), "says 2 episodes"),
    "no tasks": (removed("meta/tasks.parquet"), "tasks.parquet"),
    "tasks": (lambda root: column(root, "meta/tasks.parquet", "task"), "needs task_index"),
    "unknown task": (lambda root: column(root, DATA, "task_index", [9] * 9), "task_index is 9"),
    "no episodes": (removed(EPISODES), "no file in meta/episodes"),
    "no length": (lambda root: column(root, EPISODES, "length"), "no column 'length'"),
    "lengths": (lambda root: column(root, EPISODES, "length", [3, 5, 1]), "dataset_from_index"),
    "text": (lambda root: column(root, EPISODES, "length", ["3", "4", "2"]), "must hold numbers"),
    "numbers": (lambda root: column(root, EPISODES, "episode_index", [0, 2, 1]), "not numbered"),
    "files": (lambda root: column(root, EPISODES, "data/file_index", [0, 1, 0]), "one after the other"),
    "no data": (removed(DATA), "no file data/chunk-000/file-000.parquet"),
    "other file": (lambda root: column(root, EPISODES, "data/file_index", [0, 0, 1]), "it must have 7"),
    "data": (cut(DATA), "h264"),
    "no action": (lambda root: column(root, DATA, "action"), "no column 'action'"),
    "no feature": (lambda root: feature(root, "observation.more", dtype="float32"), "no column 'observation.more'"),
    "action type": (lambda root: feature(root, "action", dtype="object"), "numbers along one axis"),
    "ragged": (lambda root: column(root, DATA, "action", [[1.0, 2.0]] * 8 + [[1.0]]), "lists of"),
    "wider": (lambda root: column(root, DATA, "action", [[1.0, 2.0, 3.0]] * 9), r"lists of \[3\]"),
    "scalar": (lambda root: column(root, DATA, "action", [1.0] * 9), "holds double"),
    "holes": (lambda root: column(root, DATA, "action", [[1.0, 2.0]] * 8 + [None]), "1 holes"),
    "inner holes": (lambda root: column(root, DATA, "action", [[1.0, 2.0]] * 8 + [[1.0, None]]), "1 holes"),
    "nan": (lambda root: column(root, DATA, "action", [[1.0, 2.0]] * 8 + [[1.0, np.nan]]), "action is not finite"),
    "words": (lambda root: column(root, DATA, "action", [["a", "b"]] * 9), "must hold numbers"),
    "flags": (lambda root: column(root, DATA, "next.done", [2] * 9), "next.done must be one 0 or 1"),
    "episode": (lambda root: column(root, DATA, "episode_index", [0] * 9), "episode_index is 0 in row 3"),
    "frame": (lambda root: column(root, DATA, "frame_index", [0] * 9), "frame_index is 0 in row 1"),
    "no video": (removed(VIDEO), "no file videos"),
    "video": (cut(VIDEO), "file-000.mp4"),
    "empty video": (lambda root: (root / VIDEO).write_bytes(b""), "cannot be decoded"),
    "playlist": (playlist, "cannot be decoded"),
    "video size": (smaller_video, r"32 x 32; it must be 64 x 66"),
    "image shape": (lambda root: feature(root, "observation.images.front", shape=[64, 66]), "three axes"),
    "large images": (
        lambda root: feature(root, "observation.images.front", shape=[10**6, 10**6, 3]),
        "do not fit into the free memory",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_datasets_get_one_clear_error(copy, name):
    root = copy("h264")
    change, words = SPOILT[name]
    change(root)
    with pytest.raises(DataError, match=words) as caught:
        load_episodes(f"lerobot:{root}?ends=done")
    assert str(root) in str(caught.value)


def test_runs_of_a_parquet_file_cannot_inflate(copy):
    root, rows = copy("png"), 2**17
    files.runs(root / DATA, pq.read_table(root / DATA), rows)
    assert (root / DATA).stat().st_size < 20_000
    places = pq.read_table(root / EPISODES).slice(0, 1)
    for name, value in (("length", rows), ("dataset_to_index", rows)):
        places = places.set_column(places.column_names.index(name), name, pa.array([value]))
    pq.write_table(places, root / EPISODES)
    describe(root, total_episodes=1, total_frames=rows)
    feature(root, "observation.images.front", shape=[1, 1, 3])  # or the images would be too many before that
    with pytest.raises(DataError, match=r"file-000\.parquet: .* its size allows"):
        load_episodes(f"lerobot:{root}?ends=done")


def test_images_of_a_parquet_file_come_in_batches_that_fit(originals, bright, monkeypatch):
    monkeypatch.setattr(parquet, "_PIECE", 1)
    assert load_episodes(f"lerobot:{originals}/png").equal(bright)
    monkeypatch.setattr(budget, "total_memory", lambda: 30_000)  # the images are 114 kB
    assert load_episodes(f"lerobot:{originals}/png").equal(bright)
    monkeypatch.setattr(budget, "total_memory", lambda: 300)
    with pytest.raises(DataError, match="this machine 300"):
        load_episodes(f"lerobot:{originals}/png")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data_page_version": "2.0"},
        {"compression": "zstd", "row_group_size": 700},
        {"use_dictionary": False, "compression": "none", "write_page_checksum": True},
        {"use_dictionary": False, "column_encoding": {"a": "BYTE_STREAM_SPLIT", "b": "DELTA_BINARY_PACKED"}},
    ],
)
def test_pages_declare_what_the_footer_says(tmp_path, options):
    """All values, and all bytes but for the headers, which are not in the sum of the pages."""
    rng, path = np.random.default_rng(0), tmp_path / "f.parquet"
    lists = pa.FixedSizeListArray.from_arrays(rng.normal(size=9000), 3)
    columns = {"a": rng.normal(size=3000), "b": np.zeros(3000, int), "c": lists, "d": [b"x" * 9] * 3000}
    pq.write_table(pa.table(columns), path, data_page_size=5000, **options)
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            told = metadata.row_group(group).column(index)
            begins = [told.data_page_offset, told.dictionary_page_offset or told.data_page_offset]
            with path.open("rb") as file:
                found = list(pages(file, min(begins), told.total_compressed_size))
            entries = found[0].values if told.has_dictionary_page else 0
            assert sum(page.values for page in found) - entries == told.num_values
            unpacked = sum(page.unpacked for page in found)
            assert 0 < told.total_uncompressed_size - unpacked < 150 * len(found)


def test_spoilt_images_in_columns(copy):
    root = copy("png")
    name = "observation.images.front"
    table = pq.read_table(root / DATA).column(name).to_pylist()
    for image, words in (
        ({"bytes": None, "path": "/etc/hostname"}, "row 8 is no image but None"),
        ({"bytes": b"\x89PNG", "path": None}, "row 8 is not a PNG"),
        ({"bytes": table[0]["bytes"][:50], "path": None}, "row 8"),
        ({"bytes": b"GIF89a", "path": None}, "row 8 is not a PNG"),
    ):
        column(root, DATA, name, [*table[:8], image])
        with pytest.raises(DataError, match=words):
            load_episodes(f"lerobot:{root}?ends=done")


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("episodes", '{"episode_index": 3, "length": 1}', "says 3 episodes"),
        ("episodes", '{"episode_index": 3}', "line 4 of episodes.jsonl has no 'length'"),
        ("episodes", "[]", "line 4 of episodes.jsonl"),
        ("tasks", '{"task_index": "a", "task": "b"}', "line 4 of tasks.jsonl has no 'task_index'"),
        ("tasks", "{", "v2"),
    ],
)
def test_spoilt_lists_of_the_older_layout(copy, tmp_path, file, line, words):
    root = files.lerobot_v21(copy("h264")).rename(tmp_path / "v2")
    with (root / f"meta/{file}.jsonl").open("a") as lines:
        lines.write(line + "\n")
    with pytest.raises(DataError, match=words):
        load_episodes(f"lerobot:{root}?ends=done")
