"""LeRobot's own recorder, reader and converter, against ours; run by `make test-extras`."""

import importlib.util
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from robopol.data import EpisodeBuilder, Episodes, EpisodesMeta, load_episodes, save_episodes
from robopol.errors import DataError, DataWarning

if importlib.util.find_spec("lerobot") is None:
    pytest.skip("LeRobot has an environment of its own", allow_module_level=True)

_home = tempfile.TemporaryDirectory()
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": _home.name}  # read when the modules below are imported
sys.path.append(str(Path(__file__).parents[2] / "data"))

import torchvision  # noqa: E402
from dataset_files import lerobot_v21  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402
from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset  # noqa: E402

FPS, SIZE, CAMERA = 20, (64, 96), "observation.images.front"
PLAN = ((4, "pick the cube", True), (3, "place it", False), (5, "pick the cube", False))
"""Steps, task and outcome of each episode."""

PLAIN = {"dtype": "float32", "shape": (1,), "names": None}
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
    "observation.effort": PLAIN,
    "observation.touch": {"dtype": "float32", "shape": (2, 2), "names": None},
    "observation.exact": {"dtype": "float64", "shape": (2,), "names": None},
    "observation.mode": {"dtype": "int64", "shape": (1,), "names": None},
    CAMERA: {"dtype": "video", "shape": (*SIZE, 3), "names": ["height", "width", "channels"]},
    "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "next.reward": PLAIN,
    "next.done": PLAIN | {"dtype": "bool"},
    "next.success": PLAIN | {"dtype": "bool"},
    "note": {"dtype": "string", "shape": (1,), "names": None},
}


class VideoReader:
    """Frames from a key frame on: what LeRobot 0.4 asks torchvision for, and torchvision has since taken away."""

    def __init__(self, path, stream):
        self.container = av.open(path)

    def seek(self, second, keyframes_only):
        self.container.seek(int(second * av.time_base))

    def __iter__(self):
        for frame in self.container.decode(video=0):
            yield {"data": torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1), "pts": frame.time}


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    monkeypatch.setattr(torchvision.io, "VideoReader", VideoReader, raising=False)
    monkeypatch.setattr(torchvision, "set_video_backend", lambda name: None, raising=False)


def brightness(row):
    return 9 * row + 20


def frame(row, last, solved, task):
    """Everything in a row follows from its number."""
    return {
        "observation.state": np.array([row, row + 0.25, -row], np.float32),
        "observation.effort": np.array([row / 2], np.float32),
        "observation.touch": np.full((2, 2), row, np.float32),
        "observation.exact": np.array([row / 3, row], np.float64),
        "observation.mode": np.array([row % 2]),
        CAMERA: np.full((*SIZE, 3), brightness(row), np.uint8),
        "action": np.array([row, row / 8], np.float32),
        "next.reward": np.array([row / 4], np.float32),
        "next.done": np.array([last and solved]),
        "next.success": np.array([last and solved]),
        "note": f"row {row}",
        "task": task,
    }


def record(dataset, plan, row=0):
    for length, task, solved in plan:
        for step in range(length):
            dataset.add_frame(frame(row, step == length - 1, solved, task))
            row += 1
        dataset.save_episode()
    dataset.finalize()


def create(path, features=FEATURES, **options):
    return LeRobotDataset.create(
        "us/made", fps=FPS, features=features, root=path, robot_type="so101", video_backend="pyav", **options
    )


def check(found, plan):
    """All that the layout can say is there."""
    lengths = torch.tensor([length for length, _, _ in plan])
    solved = torch.tensor([solved for _, _, solved in plan])
    rows = torch.arange(int(lengths.sum())).float()
    last = lengths.cumsum(0) - 1
    assert torch.equal(found.lengths, lengths)
    assert torch.equal(found.starts, lengths.cumsum(0) - lengths)
    assert torch.equal(found.obs["state"], torch.stack([rows, rows + 0.25, -rows], 1))
    assert torch.equal(found.obs["effort"], rows[:, None] / 2)
    assert torch.equal(found.obs["touch"], rows[:, None, None].expand(-1, 2, 2))
    assert torch.equal(found.obs["exact"], torch.stack([(rows.double() / 3).float(), rows], 1))
    assert torch.equal(found.obs["mode"], rows[:, None] % 2)
    assert torch.equal(found.action, torch.stack([rows, rows / 8], 1))
    assert torch.equal(found.reward, rows / 4)
    assert found.terminated.nonzero()[:, 0].tolist() == last[solved].tolist()
    assert found.truncated.nonzero()[:, 0].tolist() == last[~solved].tolist()
    assert torch.equal(found.success, solved)
    assert not found.has_final.any()
    assert [found.meta.tasks[int(task)] for task in found.task] == [task for _, task, _ in plan]
    assert found.meta.control_hz == FPS
    assert found.meta.action_names == ("x", "y")
    images = found.obs["images.front"]
    assert images.shape == (len(rows), *SIZE, 3)
    assert (images.float() - brightness(rows)[:, None, None, None]).abs().max() <= 4  # neighbours differ by 9


@pytest.mark.parametrize(
    "options", [{"vcodec": "h264"}, {"vcodec": "libsvtav1"}, {"vcodec": "h264", "streaming_encoding": True}]
)
def test_what_lerobot_records_is_read(tmp_path, options):
    record(create(tmp_path / "made", **options), PLAN)
    with pytest.warns(DataWarning, match="not carried over: note, robot_type so101; rounded to float32") as caught:
        found = load_episodes(f"lerobot:{tmp_path}/made?ends=done")
    assert [str(warning.message).rpartition(": ")[2] for warning in caught] == ["observation.exact"]
    check(found, PLAN)
    assert found.equal(load_episodes(f"lerobot:{tmp_path}/made?ends=success"))
    with pytest.raises(DataError, match=r"next\.done and next\.success, which does not say how"):
        load_episodes(f"lerobot:{tmp_path}/made")


@pytest.mark.filterwarnings("ignore::robopol.errors.DataWarning")
def test_images_in_the_rows(tmp_path):
    record(create(tmp_path / "made", FEATURES | {CAMERA: FEATURES[CAMERA] | {"dtype": "image"}}), PLAN)
    found = load_episodes(f"lerobot:{tmp_path}/made?ends=done")
    check(found, PLAN)
    assert found.obs["images.front"][:, 5, 7, 1].tolist() == [brightness(row) for row in range(12)]


@pytest.mark.filterwarnings("ignore::robopol.errors.DataWarning")
def test_a_recording_that_went_on_another_day(tmp_path):
    """The second day's episodes are in files of their own."""
    record(create(tmp_path / "made", vcodec="h264"), PLAN[:2])
    later = LeRobotDataset("us/made", tmp_path / "made", vcodec="h264", video_backend="pyav")
    record(later, [*PLAN[2:], (2, "wave", True)], row=7)
    assert len(list((tmp_path / "made/data").rglob("*.parquet"))) == 2
    check(load_episodes(f"lerobot:{tmp_path}/made?ends=done"), [*PLAN, (2, "wave", True)])


def ours():
    """Episodes with all of it, as robopol has them: the true last observation, seeds and sources too."""
    meta = EpisodesMeta(env_id="robopol/Made-v0", control_hz=FPS, action_names=("x", "y"), tasks=("pick", "place"))
    parts, row = [], 0
    for index, (length, _, solved) in enumerate(PLAN):
        builder = EpisodeBuilder()
        for step in range(length):
            last = step == length - 1
            builder.add(
                observe(row + index),
                torch.tensor([row, row / 8]),
                row / 4,
                terminated=last and solved,
                truncated=last and not solved,
            )
            row += 1
        builder.finish(observe(row + index), success=solved, seed=index, task=index % 2)
        parts.append(builder.build(meta))
    return Episodes.concat(parts)


def observe(number):
    image = torch.full((*SIZE, 3), brightness(number), dtype=torch.uint8)
    return {"state": torch.tensor([number, number + 0.25, -number]), "images.front": image}


@pytest.mark.filterwarnings("ignore::robopol.errors.DataWarning")
@pytest.mark.parametrize("images", ["png", "h264"])
def test_lerobot_opens_what_we_write(tmp_path, images):
    made = ours()
    save_episodes(made, f"lerobot:{tmp_path}/ours?images={images}")
    windows = {"action": [-1 / FPS, 0.0, 1 / FPS], CAMERA: [-1 / FPS, 0.0]}
    found = LeRobotDataset("us/ours", tmp_path / "ours", delta_timestamps=windows, video_backend="pyav")
    assert (found.num_episodes, found.num_frames, found.fps) == (3, 12, FPS)
    assert found.meta.camera_keys == [CAMERA]
    assert found.meta.names["action"] == ["x", "y"]
    np.testing.assert_allclose(found.meta.stats["action"]["mean"], made.action.mean(0), rtol=1e-6)
    starts, ends = made.starts, made.starts + made.lengths
    for row in range(12):
        item, episode = found[row], int(made.episode_index[row])
        first, last = int(starts[episode]), int(ends[episode]) - 1
        near = torch.tensor([row - 1, row, row + 1])
        assert torch.equal(item["observation.state"], made.obs["state"][row])
        assert torch.equal(item["action"], made.action[near.clamp(first, last)])
        assert item["action_is_pad"].tolist() == [row == first, False, row == last]
        assert item["next.reward"] == made.reward[row]
        assert bool(item["next.done"]) == bool(made.terminated[row])
        assert bool(item["next.success"]) == (row == last and bool(made.success[episode]))
        assert item["task"] == ("pick", "place")[episode % 2]
        assert item["frame_index"] == row - first
        assert item["timestamp"] == pytest.approx((row - first) / FPS)
        seen = made.obs["images.front"][near[:2].clamp(first, last)].permute(0, 3, 1, 2) / 255
        assert item[CAMERA].shape == seen.shape
        assert (item[CAMERA] - seen).abs().max() <= (0 if images == "png" else 4 / 255)
    second = LeRobotDataset("us/ours", tmp_path / "ours", episodes=[1], video_backend="pyav")
    assert [int(second[index]["index"]) for index in range(len(second))] == [4, 5, 6]


@pytest.mark.filterwarnings("ignore::robopol.errors.DataWarning")
def test_lerobot_goes_on_recording_where_we_wrote(tmp_path):
    made = ours()
    save_episodes(made, f"lerobot:{tmp_path}/ours")
    dataset = LeRobotDataset("us/ours", tmp_path / "ours", vcodec="h264", video_backend="pyav")
    wanted = [name for name in frame(0, False, False, "") if name in (*dataset.features, "task")]
    for step in range(2):
        whole = frame(20 + step, step == 1, True, "place")
        dataset.add_frame({name: whole[name] for name in wanted})
    dataset.save_episode()
    dataset.finalize()
    assert len(LeRobotDataset("us/ours", tmp_path / "ours", video_backend="pyav")) == 14
    with pytest.raises(DataError, match="another program changed them"):
        load_episodes(f"lerobot:{tmp_path}/ours")
    (tmp_path / "ours/robopol.safetensors").unlink()
    found = load_episodes(f"lerobot:{tmp_path}/ours?ends=done")
    assert found.lengths.tolist() == [4, 3, 5, 2]
    assert torch.equal(found.action[:12], made.action)
    assert found.action[12:, 0].tolist() == [20, 21]
    assert torch.equal(found.success, torch.tensor([True, False, False, True]))
    assert [found.meta.tasks[int(task)] for task in found.task] == ["pick", "place", "pick", "place"]
    assert found.obs["images.front"][12:].float().mean((1, 2, 3)).round().tolist() == pytest.approx([200, 209], abs=2)


@pytest.mark.filterwarnings("ignore::robopol.errors.DataWarning")
def test_the_older_layout_is_the_one_that_lerobot_converts(tmp_path):
    save_episodes(ours(), f"lerobot:{tmp_path}/us/old")
    root = tmp_path / "us/old"
    (root / "robopol.safetensors").unlink()
    stats = json.loads((root / "meta/stats.json").read_text())
    lerobot_v21(root)
    lines = [json.dumps({"episode_index": index, "stats": stats}) for index in range(3)]
    (root / "meta/episodes_stats.jsonl").write_text("\n".join(lines))
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_chunks": 2, "total_videos": 3}))
    before = load_episodes(f"lerobot:{root}?ends=done")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert_dataset("us/old", root=tmp_path, push_to_hub=False)
    assert json.loads((root / "meta/info.json").read_text())["codebase_version"] == "v3.0"
    assert load_episodes(f"lerobot:{root}?ends=done").equal(before)
    assert load_episodes(f"lerobot:{root.with_name('old_old')}?ends=done").equal(before)
    assert len(LeRobotDataset("us/old", root, video_backend="pyav")) == 12
