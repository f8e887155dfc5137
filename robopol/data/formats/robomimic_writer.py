"""Writing robomimic files; `robopol.data.formats.robomimic` describes the layout."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from robopol.data.episodes import Episodes
from robopol.data.formats.losses import Losses
from robopol.data.formats.robomimic_env import env_args
from robopol.errors import DataError
from robopol.files import whole_file

if TYPE_CHECKING:
    import h5py

VERSION = 1
EXACT = {"terminated": np.bool_, "truncated": np.bool_, "source": np.int64, "intervention": np.bool_}
"""Columns of the group that robopol adds to each demonstration."""


def write_file(episodes: Episodes, path: Path, valid: float) -> Losses:
    """Write a file, see `robopol.data.formats.robomimic.write`; return what robomimic cannot say."""
    import h5py

    if not len(episodes):
        raise DataError(f"{path}: a robomimic file needs at least one episode")
    names = {key: _name_in_file(key) for key in episodes.obs}
    if len(set(names.values())) < len(names) or any("/" in name or name in (".", "") for name in names.values()):
        raise DataError(f"{path}: the observation keys {sorted(names)} cannot all be named in a robomimic file")
    episodes = episodes.to("cpu")
    with whole_file(path) as draft, h5py.File(draft, "w", libver="latest") as file:
        data = file.create_group("data")
        data.attrs["total"] = episodes.num_steps
        data.attrs["env_args"] = json.dumps(env_args(episodes.meta))
        own = file.create_group("robopol")
        own.attrs["version"] = VERSION
        meta = bytearray(json.dumps(episodes.meta.tree()).encode())
        _put(own, "meta", torch.frombuffer(meta, dtype=torch.uint8))
        for index in range(len(episodes)):
            _write_demo(data.create_group(f"demo_{index}"), episodes, index, names)
        if valid:
            for key, indices in zip(("train", "valid"), episodes.split_indices(valid, seed=0), strict=True):
                file[f"mask/{key}"] = np.array([f"demo_{i}" for i in indices.tolist()], dtype="S")
    losses = Losses()
    unknown = int((~episodes.has_final).sum())
    if unknown:
        losses.leave(f"next_obs of {unknown} of {len(episodes)} episodes, whose last observation is unknown")
    return losses


def _write_demo(demo: "h5py.Group", episodes: Episodes, index: int, names: dict[str, str]) -> None:
    start, length = int(episodes.starts[index]), int(episodes.lengths[index])
    rows = slice(start, start + length)
    demo.attrs["num_samples"] = length
    _put(demo, "actions", episodes.action[rows])
    _put(demo, "rewards", episodes.reward[rows])
    _put(demo, "dones", episodes.terminated[rows].to(torch.uint8))
    if episodes.states is not None:
        _put(demo, "states", episodes.states[rows])
    has_final = bool(episodes.has_final[index])
    for key, name in names.items():
        _put(demo, f"obs/{name}", episodes.obs[key][rows])
        if has_final:
            following = torch.cat([episodes.obs[key][start + 1 : start + length], episodes.final_obs[key][[index]]])
            _put(demo, f"next_obs/{name}", following)
    exact = demo.create_group("robopol")
    for name in EXACT:
        _put(exact, name, getattr(episodes, name)[rows])
    exact.attrs["has_final"] = has_final
    exact.attrs["success"] = bool(episodes.success[index])
    exact.attrs["way"] = int(episodes.way[index])
    exact.attrs["seed"] = int(episodes.seed[index])
    if episodes.task is not None:
        exact.attrs["task"] = int(episodes.task[index])
    if episodes.model is not None:
        model = int(episodes.model[index])
        exact.attrs["model"] = model
        if model >= 0:
            demo.attrs["model_file"] = episodes.meta.models[model]


def _put(group: "h5py.Group", name: str, column: Tensor) -> None:
    array = column.numpy()
    image = array.dtype == np.uint8 and array.ndim == 4
    # Chunks of one frame keep random access to images cheap; others are small enough for about 1 MiB each.
    rows = 1 if image else min(len(array), max(1, 2**20 // array[:1].nbytes))
    group.create_dataset(
        name,
        data=array,
        chunks=(rows, *array.shape[1:]),
        fletcher32=True,
        compression="gzip" if image else None,
    )


def _name_in_file(key: str) -> str:
    return f"{key.removeprefix('images.')}_image" if key.startswith("images.") else key


def share(valid: str) -> float:
    """Return the share of the episodes that are for validation.

    Raises:
        DataError: If it is no number in [0, 1).
    """
    try:
        found = float(valid)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1:
        raise DataError(f"option valid must be a number in [0, 1), got '{valid}'")
    return found
