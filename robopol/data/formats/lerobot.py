"""LeRobot datasets, layouts v3.0, v2.1 and v2.0 (format: LeRobot's documentation and sources, lerobot/datasets).

A row of the data files is a frame: ``observation.*``, ``action``, ``timestamp`` (seconds since the episode began),
``frame_index``, ``episode_index``, ``index``, ``task_index``, and where it was recorded ``next.reward``, ``next.done``
and ``next.success`` of the transition that starts there. Images are in mp4 files, found by time, or encoded in the
rows. ``observation.state`` is ``"state"``, ``observation.images.<camera>`` is ``"images.<camera>"``, and any other
``observation.<key>`` is that key. A LeRobot dataset does not hold the observation after the last frame.

What robopol knows beyond that is in `robopol.data.formats.extras`.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robopol.config import parse
from robopol.data.episodes import Episodes, EpisodesMeta
from robopol.data.formats.columns import decode_image, from_arrow
from robopol.data.formats.extras import Extras, read_extras
from robopol.data.formats.foreign import flags, one_error
from robopol.data.formats.lerobot_layout import INFO, Feature, Layout, read_layout
from robopol.data.formats.lerobot_writer import rate, write_dataset
from robopol.data.formats.losses import Losses
from robopol.data.formats.parquet import Parquet
from robopol.data.formats.target import check_folder
from robopol.data.formats.video import CODECS, decode_frames
from robopol.data.image_columns import image_column
from robopol.errors import DataError, MissingExtraError
from robopol.registry import nearest

ENDS = {
    "truncated": "every episode was cut off",
    "terminated": "every episode ended in its last state",
    "success": "an episode that succeeded ended in its last state, any other was cut off; without next.success all "
    "count as successes",
    "done": "the episode ended where next.done is true, and was cut off if it never is",
}
"""Choice of how episodes ended -> what it says."""

_TIMES = ("timestamp", "frame_index", "episode_index", "task_index")
_OUTCOMES = ("next.reward", "next.done", "next.success")
_NUMBERS = "iufb"


def read(path: Path, *, ends: str | None = None, cameras: str | None = None, env: str | None = None) -> Episodes:
    """Read a LeRobot dataset, robopol's own or anybody's.

    Without ``next.reward`` all rewards are 0; without ``next.success`` no episode succeeded, unless ``ends`` says so.
    The final observation of an episode is unknown. Other features have no place in `Episodes`; one `DataWarning` names
    them, and what rounding to float32 changes.

    Args:
        path: The folder of the dataset.
        ends: Needed for foreign datasets, which do not say why an episode ended: ``next.done`` may be absent, or
            mean any of these. One of `ENDS`.
        cameras: Comma-separated names of the cameras to read, none if empty; all if left out. Images take H * W * 3
            bytes a frame.
        env: Id of the environment, which foreign datasets do not say.

    Returns:
        The episodes.

    Raises:
        DataError: If the dataset is damaged, incomplete, ambiguous, or points to files outside its folder.
        MissingExtraError: If pyarrow is not installed.
    """
    _require_pyarrow("reading LeRobot data")
    losses = Losses()
    with one_error(path):
        layout = read_layout(path)
        extras = read_extras(path)
        _check_options(layout, extras, ends, env)
        if extras is not None:
            extras.check(layout.lengths)
        frames = _Frames(path, layout, _keys(layout, cameras), losses)
        frames.read()
        episodes = _own(frames, extras) if extras is not None else _foreign(frames, str(ends), env or "", losses)
    losses.warn(path)
    return episodes


def write(episodes: Episodes, path: Path, *, images: str = "h264", fps: str | None = None) -> None:
    """Write a dataset of layout v3.0 that LeRobot opens and that robopol reads back.

    ``next.done`` is ``terminated``, which is what learning from these data must not look beyond; ``next.success`` is
    true in the last frame of a successful episode. An episode without a task has the task "".

    Args:
        episodes: What to write; at least one episode.
        path: The folder; an older dataset there is replaced once the new one is whole.
        images: ``h264`` or ``av1``: as video, which is small and changes the images (a `DataWarning` says so).
            ``png``: in the data files, exactly as they are.
        fps: Frames per second; needed if the episodes do not know their control rate.

    Raises:
        DataError: If there are no episodes, an option does not fit them, the folder holds something else, or an
            observation cannot be named or kept in that way.
        MissingExtraError: If pyarrow is not installed.
    """
    check_target(path, images=images, fps=fps)
    write_dataset(episodes, path, images, fps)


def check_target(path: Path, *, images: str = "h264", fps: str | None = None) -> None:
    """Raise what `write` would raise whatever the episodes are."""
    _require_pyarrow("writing LeRobot data")
    if images not in ("png", *CODECS):
        raise DataError(f"option images must be one of {', '.join(CODECS)}, png; got '{images}'")
    if fps is not None:
        rate(fps)
    check_folder(path, INFO)


def _require_pyarrow(purpose: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "lerobot", purpose) from None


def _keys(layout: Layout, cameras: str | None) -> dict[str, str]:
    """Feature -> observation key, for those that are read."""
    keys = {}
    for name, feature in layout.info.features.items():
        inner = name.removeprefix("observation.")
        if inner != name and feature.is_image:
            keys[name] = f"images.{inner.removeprefix('images.')}"
        elif inner != name and _is_number(feature):
            keys[name] = inner
    if cameras is not None:
        known = [key.removeprefix("images.") for name, key in keys.items() if layout.info.features[name].is_image]
        chosen = cameras.split(",") if cameras else []
        for camera in chosen:
            if camera not in known:
                raise DataError(f"there is no camera '{camera}'{nearest(camera, known)}; there are {known}")
        skipped = {f"images.{camera}" for camera in known if camera not in chosen}
        keys = {name: key for name, key in keys.items() if key not in skipped}
    if len(set(keys.values())) < len(keys) or not keys:
        raise DataError(f"the features {sorted(keys)} must be at least one observation, each with its own key")
    return keys


def _check_options(layout: Layout, extras: Extras | None, ends: str | None, env: str | None) -> None:
    """What the dataset itself says must not be said, and `ends` must be said if not; asked before anything is read."""
    if extras is not None:
        if ends is not None:
            raise DataError("the dataset itself says how its episodes ended; leave out the option 'ends'")
        if env is not None:
            known = extras.meta.env_id
            says = f"is of the environment {known}" if known else "was written without one, as its episodes know none"
            raise DataError(f"the dataset {says}: leave out the option 'env'")
        return
    recorded = [name for name in ("next.done", "next.success") if name in layout.info.features]
    choices = {name: text for name, text in ENDS.items() if name != "done" or "next.done" in recorded}
    if ends not in choices:
        raise DataError(
            f"the dataset has {' and '.join(recorded) or 'neither next.done nor next.success'}, which does not say how "
            f"its episodes ended; say ends= one of {', '.join(f'{name} ({text})' for name, text in choices.items())}; "
            f"got {ends!r}"
        )


def _is_number(feature: Feature) -> bool:
    try:
        return np.dtype(feature.dtype).kind in _NUMBERS
    except (TypeError, ValueError, SyntaxError):
        return False


class _Frames:
    """The frames of a dataset, read file by file into columns."""

    def __init__(self, root: Path, layout: Layout, keys: dict[str, str], losses: Losses) -> None:
        self.root, self.layout, self.keys, self.losses = root, layout, keys, losses
        self.features = layout.info.features
        for name in ("action", *_TIMES):
            if name not in self.features:
                raise DataError(f"there is no feature '{name}'")
        action = self.features["action"]
        if not _is_number(action) or len(action.shape) != 1:
            raise DataError(f"the action is {action.dtype} of shape {action.shape}; it must be numbers along one axis")
        total = sum(layout.lengths)
        numbers = ["action", *(name for name in keys if not self.features[name].is_image)]
        self.columns = {name: np.empty((total, *(self.features[name].shape or (1,))), np.float32) for name in numbers}
        self.columns |= {name: np.empty((total, 1), np.float32) for name in _OUTCOMES if name in self.features}
        self.columns |= {name: np.empty((total, 1), np.int64) for name in _TIMES if name != "timestamp"}
        self.columns["timestamp"] = np.empty((total, 1), np.float64)
        cameras = [name for name in keys if self.features[name].is_image]
        self.images = {name: image_column((total, *self.features[name].image_shape)).numpy() for name in cameras}

    def read(self) -> None:
        """Fill all columns."""
        start = 0
        for file, rows in self.layout.files:
            self._read_file(file, slice(start, start + rows))
            start += rows
        self._check_order()
        for name in self.images:
            if self.features[name].dtype == "video":
                self._read_videos(name)

    def _read_file(self, path: Path, rows: slice) -> None:
        name = path.relative_to(self.root).as_posix()
        with Parquet(path, name, self.layout.budget) as file:
            encoded = [key for key in self.images if self.features[key].dtype == "image"]
            file.check_columns([*self.columns, *encoded])
            if file.rows != rows.stop - rows.start:
                raise DataError(f"{name} has {file.rows} rows; it must have {rows.stop - rows.start}")
            table = file.numbers(list(self.columns))
            for key, column in self.columns.items():
                values = from_arrow(table.column(key), column.shape[1:], f"{name}: {key}")
                self.losses.fill(key, column, rows, values)
            for key in encoded:
                row = rows.start
                for batch in file.batches(key):
                    for image in batch:
                        content = image.as_py()
                        content = content.get("bytes") if isinstance(content, dict) else content
                        where = f"{name}: {key}, row {row - rows.start}"
                        self.images[key][row] = decode_image(content, self.images[key].shape[1:], where)
                        row += 1

    def _check_order(self) -> None:
        """The rows are the frames of the episodes that meta lists, in order."""
        lengths = np.array(self.layout.lengths)
        episode = np.repeat(np.arange(len(lengths)), lengths)
        wanted = {
            "episode_index": episode,
            "frame_index": np.arange(lengths.sum()) - (np.cumsum(lengths) - lengths)[episode],
        }
        for name, values in wanted.items():
            wrong = np.flatnonzero(self.columns[name].reshape(-1) != values)
            if len(wrong):
                found = self.columns[name][wrong[0], 0]
                raise DataError(
                    f"{name} is {found} in row {wrong[0]}; by the lengths of the episodes it is {values[wrong[0]]}"
                )

    def _read_videos(self, name: str) -> None:
        """Decode each file once, for all its episodes."""
        clips = self.layout.clips[name]
        ends = np.cumsum(self.layout.lengths)
        wanted: dict[Path, list[tuple[float, int]]] = {}
        for clip, end, length in zip(clips, ends, self.layout.lengths, strict=True):
            rows = range(int(end) - length, int(end))
            times = clip.start + self.columns["timestamp"][rows.start : rows.stop, 0]
            wanted.setdefault(clip.path, []).extend(zip(times.tolist(), rows, strict=True))
        for path, frames in wanted.items():
            file = path.relative_to(self.root).as_posix()
            if not path.is_file():
                raise DataError(f"there is no file {file}")
            decode_frames(path, file, frames, self.images[name])

    def obs(self) -> dict[str, Tensor]:
        """Return the observations by key."""
        columns = self.columns | self.images
        return {key: torch.from_numpy(columns[name]) for name, key in self.keys.items()}

    def column(self, name: str) -> np.ndarray:
        """Return a column of one number a row, (N,); zeros if there is none."""
        found = self.columns.get(name)
        return np.zeros(sum(self.layout.lengths), np.float32) if found is None else found.reshape(-1)


def _own(frames: _Frames, extras: Extras) -> Episodes:
    """Episodes that robopol wrote."""
    columns = {name: column for name, column in extras.columns.items() if not name.startswith("final_obs.")}
    return Episodes(
        obs=frames.obs(),
        final_obs={key: extras.columns[f"final_obs.{key}"] for key in frames.keys.values()},
        action=torch.from_numpy(frames.columns["action"]),
        reward=torch.from_numpy(frames.column("next.reward")),
        starts=columns["lengths"].cumsum(0) - columns["lengths"],
        meta=extras.meta,
        **columns,
    )


def _foreign(frames: _Frames, ends: str, env: str, losses: Losses) -> Episodes:
    """Episodes that anybody wrote."""
    info, features = frames.layout.info, frames.features
    read = {*_TIMES, *_OUTCOMES, "action", "index"}
    for name, feature in features.items():
        if name not in read and not (name.startswith("observation.") and (feature.is_image or _is_number(feature))):
            losses.leave(name)
    if info.robot_type:
        losses.leave(f"robot_type {info.robot_type}")
    tasks, task = _tasks(frames, losses)
    tree = {
        "env_id": env,
        "control_hz": info.fps,
        "action_names": list(features["action"].labels),
        "tasks": tasks,
    }
    obs = frames.obs()
    lengths = np.array(frames.layout.lengths)
    unknown = np.full(len(lengths), -1)
    columns = _endings(frames, ends, lengths) | {
        "action": frames.columns["action"],
        "reward": frames.column("next.reward"),
        "source": np.zeros(lengths.sum(), np.int64),
        "intervention": np.zeros(lengths.sum(), np.bool_),
        "starts": np.cumsum(lengths) - lengths,
        "lengths": lengths,
        "has_final": np.zeros(len(lengths), np.bool_),
        "way": unknown,
        "seed": unknown.copy(),
        "task": task,
    }
    return Episodes(
        obs=obs,
        final_obs={key: column.new_zeros(len(lengths), *column.shape[1:]) for key, column in obs.items()},
        meta=parse(EpisodesMeta, tree),
        **{name: torch.from_numpy(column) for name, column in columns.items()},
    )


def _tasks(frames: _Frames, losses: Losses) -> tuple[list[str], np.ndarray]:
    """Return all tasks in words, and which of them each episode has; Episodes have one each."""
    numbers = sorted(frames.layout.tasks)
    column = frames.column("task_index")
    odd = np.setdiff1d(column, numbers)
    if len(odd):
        raise DataError(f"task_index is {odd[0]} in some rows; the tasks are numbered {numbers[:5]}")
    lengths = np.array(frames.layout.lengths)
    first = column[np.cumsum(lengths) - lengths]
    if not np.array_equal(column, np.repeat(first, lengths)):
        losses.leave("changes of the task within an episode")
    return [frames.layout.tasks[number] for number in numbers], np.searchsorted(numbers, first)


def _endings(frames: _Frames, ends: str, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Tell terminated from truncated, and success, as the option says."""
    firsts = np.cumsum(lengths) - lengths
    last = np.zeros(lengths.sum(), np.bool_)
    last[firsts + lengths - 1] = True
    success = np.full(len(lengths), ends == "success")
    if "next.success" in frames.columns:
        success = np.logical_or.reduceat(flags("next.success", frames.column("next.success")), firsts)
    if ends == "done":
        terminated = flags("next.done", frames.column("next.done"))
    else:
        solved = {"truncated": False, "terminated": True, "success": np.repeat(success, lengths)}[ends]
        terminated = last & solved
    return {"terminated": terminated, "truncated": last & ~terminated, "success": success}
