"""Minari datasets (format: Minari documentation, "Dataset Standards", and its 0.5 storages).

``<id>/data/metadata.json`` describes the spaces; beside it lie either ``main_data.hdf5`` with a group
``episode_<k>`` or a folder ``<k>`` of Arrow or Parquet files for each episode. An episode of T steps has T + 1
observations and T ``actions``, ``rewards``, ``terminations``, ``truncations``; Arrow and Parquet pad all to T + 1.
Terminations and truncations are apart and the last observation is there, so that nothing is to be guessed.

In a dictionary of observations ``observation`` is ``"state"``, ``desired_goal`` is ``"goal"``, images are
``"images.<name>"``, dictionaries inside are joined by dots, and other names stay. A single observation is
``"state"`` or ``"images.pixels"``. What robopol knows beyond that is in `robopol.data.formats.extras`.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopol.config import Config, parse
from robopol.data.episodes import Episodes, EpisodesMeta
from robopol.data.formats.extras import NAME as EXTRAS
from robopol.data.formats.extras import read_extras
from robopol.data.formats.foreign import flags, one_error
from robopol.data.formats.losses import Losses
from robopol.data.formats.minari_columns import METADATA
from robopol.data.formats.minari_files import RECORDED, Source, open_files
from robopol.data.formats.minari_spaces import Box, boxes
from robopol.data.formats.minari_writer import write_dataset
from robopol.data.formats.target import check_folder
from robopol.errors import DataError

_SUCCESS = ("success", "is_success")
_KNOWN = ("id", "seed", "total_steps", RECORDED)
_DERIVED = ("dataset_id", "dataset_size", "jpeg_encoding")
_PIN = re.compile(r"([\w.-]+)(?:\[[^]]*\])? *== *([\w.+!-]+)")  # of a package; anything wider names no version
_ID = re.compile(r"([-\w][-\w/]*[-\w]/)?[-\w]+-v\d+")  # what Minari takes for one


def read(path: Path) -> Episodes:
    """Read a Minari dataset.

    An episode succeeded if the ``success`` or ``is_success`` of its infos was ever true after the reset; without
    them no episode counts as a success. Packages that the requirements pin are the versions in the meta, and reference
    scores its reference returns. Numbers become float32; one `DataWarning` names what that rounds, and the infos,
    options and authors, which have no place in `Episodes`. The environment's description is read as text only: nothing
    of it is imported or made.

    Args:
        path: The folder of the dataset, or its id in Minari's own folder (``MINARI_DATASETS_PATH``, else
            ``~/.minari/datasets``); a folder that exists goes first.

    Returns:
        The episodes in the order of their numbers.

    Raises:
        DataError: If there is no such dataset, it is damaged or incomplete, or observations or actions are not
            numbers (discrete, text and tuple spaces).
        MissingExtraError: If the dataset is of Arrow or Parquet files and pyarrow is not installed.
    """
    folder = _find(path)
    losses = Losses()
    with one_error(folder):
        tree = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        metadata = parse(_Metadata, tree)
        with open_files(folder, metadata.data_format) as source:
            episodes = _read(folder, metadata, source, losses)
        if not (folder / EXTRAS).is_file():
            told = [name for name, value in tree.items() if value]
            losses.leave_others(told, (*_Metadata.model_fields, *_DERIVED))
    losses.warn(folder)
    return episodes


def write(episodes: Episodes, path: Path) -> None:
    """Write a dataset that Minari opens and that robopol reads back without loss.

    Images are kept as they are, not as JPEG. Minari cannot say that the last observation of an episode is unknown:
    there its numbers are NaN, its images black, ``final_observation_recorded`` in the metadata of the episode is
    False, and a `DataWarning` counts such episodes.

    Args:
        episodes: What to write; at least one episode.
        path: The folder, whose name is the name of the dataset and must end in a version, as in ``reach-v0``. Inside
            Minari's own folder ``minari.load_dataset`` finds it by its path from there.

    Raises:
        DataError: If there are no episodes, the folder's name is not one for a dataset, it holds something else, or
            an observation key has no name in Minari.
    """
    check_target(path)
    write_dataset(episodes, path, _dataset_id(path))


def check_target(path: Path) -> None:
    """Raise what `write` would raise whatever the episodes are."""
    _dataset_id(path)
    check_folder(path, f"data/{METADATA}")


def datasets_folder() -> Path:
    """Return Minari's own folder of datasets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def _find(path: Path) -> Path:
    """Return the folder with the metadata."""
    inside = not path.exists() and _ID.fullmatch(path.as_posix())
    place = datasets_folder() / path if inside else path
    for folder in (place / "data", place):
        if (folder / METADATA).is_file():
            return folder
    raise DataError(
        f"{path}: there is no Minari dataset (a folder with data/{METADATA})"
        + (f", and none of that id in {datasets_folder()}" if inside else "")
    )


def _dataset_id(path: Path) -> str:
    root, full = datasets_folder().resolve(), path.resolve()
    name = full.relative_to(root).as_posix() if full.is_relative_to(root) else full.name
    if not _ID.fullmatch(name):
        raise DataError(f"{path}: '{name}' is no id of a Minari dataset; it must be like reach-v0")
    return name


class _Metadata(Config, extra="ignore"):
    """What robopol reads of ``metadata.json``."""

    total_episodes: int
    total_steps: int
    observation_space: str
    action_space: str
    data_format: str = "hdf5"
    env_spec: str | None = None
    minari_version: str = ""
    requirements: list[str] | None = None
    ref_min_score: float | None = None
    ref_max_score: float | None = None


def _read(folder: Path, metadata: _Metadata, source: Source, losses: Losses) -> Episodes:
    parts = list(boxes(json.loads(metadata.observation_space)))
    action = json.loads(metadata.action_space)
    if action.get("type") != "Box" or len(action["shape"]) != 1:
        raise DataError(f"the action space is {metadata.action_space[:100]}; robopol acts in a Box of one axis")
    lengths = _lengths(metadata, source)
    extras = read_extras(folder)
    keys = [box.key for box in parts]
    if extras is not None:
        extras.check(lengths)
    if len(set(keys)) < len(keys):
        raise DataError(f"several observations would have the same key: {sorted(keys)}")

    total, count = sum(lengths), len(lengths)
    obs = {key: box.column(total) for key, box in zip(keys, parts, strict=True)}
    final_obs = {key: box.column(count) for key, box in zip(keys, parts, strict=True)}
    steps = {
        "action": np.empty((total, *action["shape"]), np.float32),
        "reward": np.empty(total, np.float32),
        "terminated": np.empty(total, np.bool_),
        "truncated": np.empty(total, np.bool_),
    }
    start = 0
    for index, length in enumerate(lengths):
        rows, start = slice(start, start + length), start + length
        losses.fill("actions", steps["action"], rows, source.column(index, ("actions",), (length, *action["shape"])))
        losses.fill("rewards", steps["reward"], rows, source.column(index, ("rewards",), (length,)))
        steps["terminated"][rows] = flags("terminations", source.column(index, ("terminations",), (length,)))
        steps["truncated"][rows] = flags("truncations", source.column(index, ("truncations",), (length,)))
        for key, box in zip(keys, parts, strict=True):
            name, final = "/".join(("observations", *box.path)), final_obs[key][index : index + 1]
            for part, found in _observations(source, index, box, length):
                values = found.reshape(-1, *box.row)
                before = values[: length - part.start]
                losses.fill(name, obs[key][rows], slice(part.start, part.start + len(before)), before)
                losses.fill(name, final, slice(0, len(values) - len(before)), values[len(before) :])

    columns = {name: torch.from_numpy(column) for name, column in steps.items()}
    sizes = torch.tensor(lengths)
    columns |= {"starts": sizes.cumsum(0) - sizes, "lengths": sizes}
    columns["seed"] = torch.tensor([_seed(source.attributes(index), losses) for index in range(count)])
    if extras is None:
        meta = _meta(metadata, action, losses)
        columns |= _outcomes(lengths, source, losses)
    else:
        meta = extras.meta
        columns |= extras.columns
        for final in final_obs.values():
            final[~columns["has_final"].numpy()] = 0
    return Episodes(
        obs={key: torch.from_numpy(column) for key, column in obs.items()},
        final_obs={key: torch.from_numpy(column) for key, column in final_obs.items()},
        meta=meta,
        **columns,
    )


def _observations(source: Source, index: int, box: Box, length: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Read an observation of an episode, T + 1 rows; images come some at a time."""
    path, shape = ("observations", *box.path), (length + 1, *box.shape)
    if box.image:
        yield from source.images(index, path, shape)
    else:
        yield slice(0, length + 1), source.column(index, path, shape)


def _lengths(metadata: _Metadata, source: Source) -> list[int]:
    """Return the number of steps of every episode, as the arrays and the metadata agree on them."""
    lengths = []
    for index in range(metadata.total_episodes):
        length = source.length(index)
        stated = source.attributes(index).get("total_steps", length)
        if length < 1 or stated != length:
            raise DataError(
                f"episode {index} has {length} rewards and says it has {stated} steps; it needs one or more"
            )
        lengths.append(length)
    if not lengths or sum(lengths) != metadata.total_steps:
        raise DataError(f"{len(lengths)} episodes have {sum(lengths)} steps; {METADATA} says {metadata.total_steps}")
    return lengths


def _seed(attributes: dict[str, Any], losses: Losses) -> int:
    """Return the seed of an episode, and note what else is said of it."""
    for name in attributes:
        if name not in _KNOWN and not name.startswith("rewards_"):
            losses.leave(name.partition("/")[0])
    seed = attributes.get("seed")
    if seed is None or seed == "None":  # before 0.5 Minari wrote the word
        return -1
    if not 0 <= int(seed) < 2**63:
        losses.leave("seeds of more than 63 bits")
        return -1
    return int(seed)


def _outcomes(lengths: list[int], source: Source, losses: Losses) -> dict[str, Tensor]:
    """What a foreign dataset says, and does not say, of its episodes beyond the arrays."""
    success = []
    for index, length in enumerate(lengths):
        infos = source.infos(index)
        for name in infos:
            if name not in _SUCCESS:
                losses.leave(f"infos/{name}")
        found = [source.info(index, name)[-length:] for name in infos if name in _SUCCESS]
        success.append(any(bool(np.any(values)) for values in found))
    total, count = sum(lengths), len(lengths)
    return {
        "source": torch.zeros(total, dtype=torch.int64),
        "intervention": torch.zeros(total, dtype=torch.bool),
        "has_final": torch.ones(count, dtype=torch.bool),
        "success": torch.tensor(success),
        "way": torch.full((count,), -1),
    }


def _meta(metadata: _Metadata, action: dict[str, Any], losses: Losses) -> EpisodesMeta:
    """Meta of a foreign dataset; the environment's description is only quoted."""
    scores = {name: getattr(metadata, name) for name in ("ref_min_score", "ref_max_score")}
    scored = all(score is not None and np.isfinite(score) for score in scores.values())
    losses.leave_others((name for name, score in scores.items() if score is not None), scores if scored else ())
    pins = {text: _PIN.fullmatch(text.strip()) for text in metadata.requirements or ()}
    losses.leave_others((text for text, pin in pins.items() if pin is None), (), "requirement ")
    env = json.loads(metadata.env_spec) if metadata.env_spec else {}
    if env.get("additional_wrappers"):
        losses.leave("wrappers of env_spec")
    bounds = [np.asarray(action[side], np.float64).reshape(-1) for side in ("low", "high")]
    known = all(bool(np.isfinite(side).all()) for side in bounds)
    tree = {
        "env_id": env.get("id") or "",
        "env_options": env.get("kwargs") or {},
        "action_low": bounds[0].tolist() if known else [],
        "action_high": bounds[1].tolist() if known else [],
        "versions": {pin[1]: pin[2] for pin in pins.values() if pin is not None},
        "reference_returns": list(scores.values()) if scored else None,
    }
    return parse(EpisodesMeta, tree)
