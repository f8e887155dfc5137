"""Writing LeRobot datasets, layout v3.0: data files, videos, and what ``meta`` says of them.

Paths, columns and types are those of LeRobot 0.4 to 0.6 (``lerobot/datasets``).
"""

import io
import json
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopol.data.episodes import Episodes, is_image
from robopol.data.formats.extras import write_extras
from robopol.data.formats.lerobot_layout import INFO, TASKS
from robopol.data.formats.lerobot_stats import Stats, histogram, image_stats, number_stats
from robopol.data.formats.video import VideoWriter
from robopol.errors import DataError, DataWarning
from robopol.files import whole_folder

CHUNK_FILES, DATA_MB, VIDEO_MB = 1000, 100, 200
"""Files in a chunk, and the size that a file may reach before the next episode goes to another one."""

_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_EPISODES = "meta/episodes/chunk-000/file-000.parquet"
_EXTRAS = (
    "terminated",
    "truncated",
    "source",
    "intervention",
    "states",
    "has_final",
    "success",
    "way",
    "seed",
    "model",
    "task",
)


def write_dataset(episodes: Episodes, path: Path, images: str, fps: str | None) -> None:
    """Write a dataset; the arguments are those of `robopol.data.formats.lerobot.write`."""
    if not len(episodes):
        raise DataError(f"{path}: a LeRobot dataset needs at least one episode")
    for key in episodes.obs:
        if "/" in key or not key:
            raise DataError(f"the observation key '{key}' cannot be the name of a LeRobot feature")
    frames_a_second = rate(_told(episodes, fps))
    cameras = [f"observation.{key}" for key in episodes.obs if is_image(key)]
    if cameras and images != "png":
        warnings.warn(
            f"{path}: {', '.join(cameras)} are kept as {images} video, which changes the images (images=png does not)",
            DataWarning,
            stacklevel=4,
        )
    with whole_folder(path) as draft:
        _Writer(episodes.to("cpu"), draft, images, frames_a_second).write()


def rate(fps: float | str) -> Fraction:
    """Return frames per second as a fraction, as video counts them.

    Raises:
        DataError: If it is no number above 0.
    """
    try:
        found = Fraction(fps).limit_denominator(10**6)
    except (ValueError, ZeroDivisionError):
        found = Fraction(0)
    if found <= 0:
        raise DataError(f"the frames per second must be a number above 0, got {fps}")
    return found


def _told(episodes: Episodes, fps: str | None) -> float | str:
    """Return the frames per second, which either the episodes or the option says."""
    known = episodes.meta.control_hz
    if (known is None) == (fps is None):
        raise DataError(
            "the episodes do not say how many steps a second has; say fps="
            if known is None
            else f"the episodes themselves say that a second has {known} steps; leave out the option 'fps'"
        )
    return known if fps is None else fps  # type: ignore[return-value]  # one of them is there


class _Writer:
    """Writes episodes into an empty folder."""

    def __init__(self, episodes: Episodes, root: Path, images: str, fps: Fraction) -> None:
        self._episodes, self._root, self._images, self._fps = episodes, root, images, fps
        self._cameras = {f"observation.{key}": column.numpy() for key, column in episodes.obs.items() if is_image(key)}
        self._tasks, task = _tasks(episodes)
        lengths, last = episodes.lengths, episodes.starts + episodes.lengths - 1
        frame = torch.arange(episodes.num_steps) - torch.repeat_interleave(episodes.starts, lengths)
        success = torch.zeros(episodes.num_steps, dtype=torch.bool)
        success[last] = episodes.success
        columns = {f"observation.{key}": column for key, column in episodes.obs.items() if not is_image(key)} | {
            "action": episodes.action,
            "next.reward": episodes.reward,
            "next.done": episodes.terminated,
            "next.success": success,
            "timestamp": (frame.double() / float(fps)).float(),
            "frame_index": frame,
            "episode_index": episodes.episode_index,
            "index": torch.arange(episodes.num_steps),
            "task_index": task[episodes.episode_index],
        }
        self._columns = {name: column.numpy() for name, column in columns.items()}

    def write(self) -> None:
        """Write everything."""
        parts = [self._listed(), self._write_data()]
        if self._images != "png":
            parts += [self._write_videos(name) for name in self._cameras]
        stats, whole = self._stats()
        parts.append(stats)
        merged = [{name: value for part in group for name, value in part.items()} for group in zip(*parts, strict=True)]
        self._write_meta(merged, whole)
        final_obs = [f"final_obs.{key}" for key in self._episodes.obs]
        write_extras(self._root, self._episodes, (*_EXTRAS, *final_obs))

    def _listed(self) -> list[dict[str, Any]]:
        """Say of each episode how long it is and what was to be done."""
        tasks = self._columns["task_index"][self._episodes.starts.numpy()]
        return [
            {"episode_index": index, "length": length, "tasks": [self._tasks[task]]}
            for index, (length, task) in enumerate(zip(self._episodes.lengths.tolist(), tasks, strict=True))
        ]

    def _rows(self, index: int) -> slice:
        start = int(self._episodes.starts[index])
        return slice(start, start + int(self._episodes.lengths[index]))

    def _files(self, template: str, **fields: str) -> Iterator[tuple[Path, int, int]]:
        """Name one file after the other."""
        number = 0
        while True:
            chunk, file = divmod(number, CHUNK_FILES)
            path = self._root / template.format(chunk_index=chunk, file_index=file, **fields)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path, chunk, file
            number += 1

    def _write_data(self) -> list[dict[str, Any]]:
        """Write the data files; return where each episode is."""
        import pyarrow.parquet as pq

        schema = self._schema()
        places: list[dict[str, Any]] = []
        for path, chunk, file in self._files(_DATA):
            first = len(places)
            with pq.ParquetWriter(path, schema) as writer:
                while len(places) < len(self._episodes) and (
                    len(places) == first or path.stat().st_size < DATA_MB * 2**20
                ):
                    rows = self._rows(len(places))
                    writer.write_table(self._table(schema, rows))
                    place = {"data/chunk_index": chunk, "data/file_index": file}
                    places.append(place | {"dataset_from_index": rows.start, "dataset_to_index": rows.stop})
            if len(places) == len(self._episodes):
                break
        return places

    def _schema(self) -> Any:
        import pyarrow as pa

        image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        fields = {name: image for name in self._cameras} if self._images == "png" else {}
        for name, column in self._columns.items():
            kind = pa.from_numpy_dtype(column.dtype)
            shape = column.shape[1:]
            if len(shape) == 1 and shape != (1,):
                kind = pa.list_(kind, shape[0])
            elif len(shape) > 1:
                for _ in shape:
                    kind = pa.list_(kind)
            fields[name] = kind
        return pa.schema(fields)

    def _table(self, schema: Any, rows: slice) -> Any:
        import pyarrow as pa

        arrays = []
        for field in schema:
            if field.name in self._cameras:
                values = [{"bytes": _png(image), "path": None} for image in self._cameras[field.name][rows]]
                arrays.append(pa.array(values, field.type))
                continue
            column = self._columns[field.name][rows]
            if pa.types.is_fixed_size_list(field.type):
                arrays.append(pa.FixedSizeListArray.from_arrays(column.reshape(-1), column.shape[1]))
            else:
                nested = pa.types.is_list(field.type)
                arrays.append(pa.array(column.tolist() if nested else column.reshape(-1), field.type))
        return pa.Table.from_arrays(arrays, schema=schema)

    def _write_videos(self, name: str) -> list[dict[str, Any]]:
        """Write the videos of a camera; return where each episode is."""
        column = self._cameras[name]
        if column.shape[3] != 3:
            raise DataError(f"{name} has {column.shape[3]} channels and video needs 3; say images=png")
        places: list[dict[str, Any]] = []
        for path, chunk, file in self._files(_VIDEO, video_key=name):
            with VideoWriter(path, self._images, self._fps, *column.shape[1:3]) as video:
                while len(places) < len(self._episodes) and (not video.frames or video.size < VIDEO_MB * 2**20):
                    place = {"chunk_index": chunk, "file_index": file, "from_timestamp": video.seconds}
                    video.add(column[self._rows(len(places))])
                    place["to_timestamp"] = video.seconds
                    places.append({f"videos/{name}/{part}": value for part, value in place.items()})
            if len(places) == len(self._episodes):
                break
        return places

    def _stats(self) -> tuple[list[dict[str, Any]], dict[str, Stats]]:
        """Return the statistics of each episode, as columns, and of everything."""
        spans = [self._rows(index) for index in range(len(self._episodes))]
        each: dict[str, list[Stats]] = {}
        whole = {}
        for feature, column in self._columns.items():
            each[feature] = [number_stats(column[rows]) for rows in spans]
            whole[feature] = number_stats(column)
        for feature, images in self._cameras.items():
            counts = [histogram(images[rows]) for rows in spans]
            each[feature] = [
                image_stats(count, rows.stop - rows.start) for count, rows in zip(counts, spans, strict=True)
            ]
            whole[feature] = image_stats(np.sum(counts, axis=0), len(images))
        columns = [
            {
                f"stats/{feature}/{name}": value.tolist()
                for feature, stats in each.items()
                for name, value in stats[index].items()
            }
            for index in range(len(spans))
        ]
        return columns, whole

    def _write_meta(self, rows: list[dict[str, Any]], stats: dict[str, Stats]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for row in rows:
            row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        (self._root / _EPISODES).parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), self._root / _EPISODES)
        pq.write_table(_tasks_table(self._tasks), self._root / TASKS)
        trees = {
            INFO: self._info(),
            "meta/stats.json": {
                feature: {name: value.tolist() for name, value in values.items()} for feature, values in stats.items()
            },
        }
        for name, tree in trees.items():
            (self._root / name).write_text(json.dumps(tree, indent=4), encoding="utf-8")

    @property
    def _told_fps(self) -> int | float:
        """Frames a second as JSON says them."""
        return int(self._fps) if self._fps.denominator == 1 else float(self._fps)

    def _info(self) -> dict[str, Any]:
        count = len(self._episodes)
        return {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": count,
            "total_frames": self._episodes.num_steps,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": self._told_fps,
            "splits": {"train": f"0:{count}"},
            "data_path": _DATA,
            "video_path": _VIDEO if self._cameras and self._images != "png" else None,
            "features": self._features(),
        }

    def _features(self) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for name, images in self._cameras.items():
            height, width, channels = images.shape[1:]
            features[name] = {
                "dtype": "image" if self._images == "png" else "video",
                "shape": [height, width, channels],
                "names": ["height", "width", "channels"],
            }
            if self._images != "png":
                features[name]["info"] = {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": self._images,
                    "video.pix_fmt": "yuv444p" if height % 2 or width % 2 else "yuv420p",
                    "video.is_depth_map": False,
                    "video.fps": self._told_fps,
                    "video.channels": channels,
                    "has_audio": False,
                }
        labels = self._episodes.meta.action_names
        for name, column in self._columns.items():
            fits = name == "action" and (len(labels),) == column.shape[1:]
            shape = list(column.shape[1:]) or [1]
            features[name] = {"dtype": str(column.dtype), "shape": shape, "names": list(labels) if fits else None}
        return features


def _tasks(episodes: Episodes) -> tuple[list[str], torch.Tensor]:
    """Return the texts of the tasks, each once, and (E,) which of them each episode has; "" where there is none."""
    texts = list(episodes.meta.tasks) if episodes.task is not None else []
    # the extra last entry is what -1 (none) stands for
    each = (
        [(*texts, "")[int(number)] for number in episodes.task] if episodes.task is not None else [""] * len(episodes)
    )
    distinct = list(dict.fromkeys((*texts, *each)))
    return distinct, torch.tensor([distinct.index(text) for text in each])


def _tasks_table(tasks: list[str]) -> Any:
    """Make the table of the tasks, with the text as the index that pandas restores."""
    import pyarrow as pa

    columns = [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ]
    header = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(header)})


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
