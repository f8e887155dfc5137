"""Where the frames of a LeRobot dataset are: layouts v3.0 and v2 say it in different files, here in one way.

v3.0 keeps many episodes in a file and says which in ``meta/episodes/*/*.parquet``; v2 keeps an episode a file and
says what there is in ``meta/episodes.jsonl``. Both name their files by templates in ``meta/info.json``.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import Field, JsonValue

from robopol.config import Config, parse
from robopol.data.formats.budget import Budget
from robopol.data.formats.columns import from_arrow
from robopol.data.formats.parquet import Parquet
from robopol.errors import DataError

INFO = "meta/info.json"
TASKS = "meta/tasks.parquet"
_FIELD = re.compile(r"\{(\w+)(?::0(\d)d)?\}")


class Feature(Config, extra="ignore"):
    """What ``info.json`` says of one column.

    Attributes:
        dtype: A numpy type, ``string``, ``image`` (encoded in the column) or ``video`` (in mp4 files).
        shape: Shape of one row.
        names: Names of the axes of an image, or of the numbers of a vector; or nothing.
    """

    dtype: str
    shape: tuple[int, ...]
    names: JsonValue = None

    @property
    def is_image(self) -> bool:
        """Whether it is a camera."""
        return self.dtype in ("image", "video")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C), however the axes are ordered in ``shape``."""
        if len(self.shape) != 3:
            raise DataError(f"an image has the shape {self.shape}; it must have three axes")
        first = str(self.names[0]) if isinstance(self.names, list) and self.names else ""
        planes = first.startswith("channel") if first else self.shape[2] not in (1, 3, 4)
        height, width, channels = (*self.shape[1:], self.shape[0]) if planes else self.shape
        return height, width, channels

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the numbers of a vector, if there are as many; older datasets keep them one level deeper."""
        names = self.names
        if isinstance(names, dict) and len(names) == 1:
            (names,) = names.values()
        fits = isinstance(names, list) and (len(names),) == self.shape
        return tuple(str(name) for name in names) if fits else ()  # type: ignore[union-attr]


class Info(Config, extra="ignore"):
    """What robopol reads of ``info.json``."""

    codebase_version: str
    fps: float = Field(gt=0, allow_inf_nan=False)
    features: dict[str, Feature]
    total_episodes: int
    total_frames: int
    data_path: str
    video_path: str | None = None
    chunks_size: int = Field(default=1000, gt=0)
    robot_type: str | None = None


@dataclass(frozen=True)
class Clip:
    """The video of one episode: a file, and the second at which the episode begins in it."""

    path: Path
    start: float


@dataclass(frozen=True)
class Layout:
    """A dataset before its frames are read.

    Attributes:
        info: Of the dataset.
        lengths: Frames of each episode.
        files: Data files and their numbers of rows, in the order of the frames.
        clips: Feature of a camera -> the video of each episode.
        tasks: ``task_index`` -> what was to be done, in words.
        budget: What the Parquet files may declare.
    """

    info: Info
    lengths: list[int]
    files: list[tuple[Path, int]]
    clips: dict[str, list[Clip]]
    tasks: dict[int, str]
    budget: Budget


def read_layout(root: Path) -> Layout:
    """Read what lies in ``meta``.

    Raises:
        DataError: If there is no dataset, it is of another version, or what it says of itself does not fit together.
    """
    if not (root / INFO).is_file():
        raise DataError(f"there is no LeRobot dataset (a folder with {INFO})")
    info = parse(Info, json.loads((root / INFO).read_text(encoding="utf-8")))
    readers = {"v3.0": _read_v30, "v2.1": _read_v2, "v2.0": _read_v2}  # v2.0 differs in its statistics only
    if info.codebase_version not in readers:
        raise DataError(
            f"the layout is {info.codebase_version}, robopol reads {', '.join(readers)}; convert it with LeRobot"
        )
    for name in info.features:
        if "/" in name:
            raise DataError(f"the feature '{name}' has a slash in its name")
    budget = Budget(sum(file.stat().st_size for file in root.rglob("*.parquet")))
    layout = readers[info.codebase_version](root, info, budget)
    count, frames = len(layout.lengths), sum(layout.lengths)
    if not count or min(layout.lengths) < 1 or (count, frames) != (info.total_episodes, info.total_frames):
        raise DataError(
            f"{INFO} says {info.total_episodes} episodes of {info.total_frames} frames together; listed are {count} of "
            f"{frames}, and each needs at least one"
        )
    return layout


def _read_v30(root: Path, info: Info, budget: Budget) -> Layout:
    cameras = [name for name, feature in info.features.items() if feature.dtype == "video"]
    integers = ["episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index"]
    seconds = []
    for camera in cameras:
        integers += [f"videos/{camera}/chunk_index", f"videos/{camera}/file_index"]
        seconds.append(f"videos/{camera}/from_timestamp")
    table = _episodes_table(root, integers + seconds, budget)
    lengths = table["length"].astype(np.int64)
    if not np.array_equal(table["episode_index"], np.arange(len(lengths))):
        raise DataError("the episodes in meta/episodes are not numbered 0, 1, 2, ...")
    if not np.array_equal(table["dataset_from_index"], np.cumsum(lengths) - lengths):
        raise DataError("dataset_from_index in meta/episodes does not follow from the lengths of the episodes")
    rows: dict[tuple[int, int], int] = {}
    for place, length in zip(_pairs(table, "data"), lengths.tolist(), strict=True):
        if place in rows and place != next(reversed(rows)):
            raise DataError(f"the episodes of data file {place} do not lie one after the other")
        rows[place] = rows.get(place, 0) + length
    files = [
        (_place(root, info.data_path, {"chunk_index": chunk, "file_index": file}), count)
        for (chunk, file), count in rows.items()
    ]
    clips: dict[str, list[Clip]] = {}
    for camera in cameras:
        places = _pairs(table, f"videos/{camera}")
        starts = table[f"videos/{camera}/from_timestamp"].tolist()
        clips[camera] = [
            Clip(_place(root, info.video_path, {"video_key": camera, "chunk_index": chunk, "file_index": file}), start)
            for (chunk, file), start in zip(places, starts, strict=True)
        ]
    return Layout(info, lengths.tolist(), files, clips, _tasks_v30(root, budget), budget)


def _pairs(table: dict[str, np.ndarray], of: str) -> list[tuple[int, int]]:
    """Return chunk and file of each episode."""
    chunks, files = (table[f"{of}/{part}"].astype(np.int64).tolist() for part in ("chunk_index", "file_index"))
    return list(zip(chunks, files, strict=True))


def _episodes_table(root: Path, names: list[str], budget: Budget) -> dict[str, np.ndarray]:
    """Read some columns of ``meta/episodes``, a number a row."""
    import pyarrow as pa

    paths = sorted((root / "meta/episodes").glob("*/*.parquet"))
    tables = []
    for path in paths:
        with Parquet(path, path.relative_to(root).as_posix(), budget) as file:
            file.check_columns(names)
            tables.append(file.numbers(names).select(names))
    if not tables:
        raise DataError("there is no file in meta/episodes")
    table = pa.concat_tables(tables)
    return {name: from_arrow(table.column(name), (1,), f"meta/episodes: {name}").reshape(-1) for name in names}


def _tasks_v30(root: Path, budget: Budget) -> dict[int, str]:
    """Read ``meta/tasks.parquet``: the text is the index of the table that pandas wrote, of whatever name."""
    import pyarrow as pa

    with Parquet(root / TASKS, TASKS, budget) as file:
        texts = [
            field.name
            for field in file.schema
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        if "task_index" not in file.names or not texts:
            raise DataError(f"{TASKS} has the columns {file.names}; it needs task_index and the tasks in words")
        column = file.numbers(["task_index"]).column("task_index")
        numbers = from_arrow(column, (1,), f"{TASKS}: task_index").reshape(-1)
        tasks: list[str] = []
        for batch in file.batches("task" if "task" in texts else texts[-1]):
            budget.spend(TASKS, 1, (batch.nbytes,))
            tasks += map(str, batch.to_pylist())
    return dict(zip(numbers.astype(np.int64).tolist(), tasks, strict=True))


def _read_v2(root: Path, info: Info, budget: Budget) -> Layout:
    entries = _json_lines(root / "meta/episodes.jsonl", {"episode_index": int, "length": int})
    if [entry["episode_index"] for entry in entries] != list(range(len(entries))):
        raise DataError("the episodes in meta/episodes.jsonl are not numbered 0, 1, 2, ...")
    tasks = _json_lines(root / "meta/tasks.jsonl", {"task_index": int, "task": str})
    fields = [{"episode_chunk": index // info.chunks_size, "episode_index": index} for index in range(len(entries))]
    lengths = [entry["length"] for entry in entries]
    return Layout(
        info,
        lengths,
        [(_place(root, info.data_path, place), length) for place, length in zip(fields, lengths, strict=True)],
        {
            name: [Clip(_place(root, info.video_path, place | {"video_key": name}), 0.0) for place in fields]
            for name, feature in info.features.items()
            if feature.dtype == "video"
        },
        {entry["task_index"]: entry["task"] for entry in tasks},
        budget,
    )


def _json_lines(path: Path, needed: Mapping[str, type]) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, entry in enumerate(entries):
        for name, kind in needed.items():
            if not isinstance(entry, dict) or type(entry.get(name)) is not kind:
                raise DataError(f"line {number + 1} of {path.name} has no '{name}' of type {kind.__name__}")
    return entries


def _place(root: Path, template: str | None, fields: Mapping[str, int | str]) -> Path:
    """Fill in a template of a file's name; nothing but plain fields is known, and it must stay in the folder.

    Raises:
        DataError: If it does not.
    """

    def value(match: re.Match[str]) -> str:
        field = fields.get(match[1])
        if field is None or (match[2] and not isinstance(field, int)):
            raise DataError(f"the template '{template}' asks for {match[0]}; known are {', '.join(fields)}")
        return f"{field:0{match[2]}d}" if match[2] else str(field)

    name = _FIELD.sub(value, template or "")
    path = PurePosixPath(name)
    if not name or re.search(r"[{}\\:]", name) or path.is_absolute() or ".." in path.parts:
        raise DataError(f"the template '{template}' does not name a file inside the dataset")
    return root / path
