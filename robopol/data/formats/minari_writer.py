"""Writing Minari datasets: one HDF5 file, what describes it, and what robopol knows beyond that."""

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robopol.data.episodes import Episodes, is_image
from robopol.data.formats.extras import write_extras
from robopol.data.formats.minari_columns import METADATA
from robopol.data.formats.minari_files import MAIN, RECORDED
from robopol.data.formats.minari_spaces import NAMES, Box, box_space, is_picture
from robopol.errors import DataError, DataWarning
from robopol.files import whole_folder

if TYPE_CHECKING:
    import h5py

MINARI_VERSION = "0.5.4"
"""Version of the layout that is written; the first in which images need not be JPEG."""

_EXTRAS = ("source", "intervention", "states", "has_final", "success", "way", "model", "task")
_ENV_ID = re.compile(r"([\w:-]+/)?[\w:.-]+")  # what gymnasium takes for one


def write_dataset(episodes: Episodes, path: Path, dataset_id: str) -> None:
    """Write a dataset; `robopol.data.formats.minari.write` says what becomes of it."""
    import h5py

    if not len(episodes):
        raise DataError(f"{path}: a Minari dataset needs at least one episode")
    names = {key: NAMES.get(key, key.removeprefix("images.")) for key in episodes.obs}
    _check_names(path, episodes, names)
    episodes = episodes.to("cpu")
    unknown = int((~episodes.has_final).sum())
    if unknown:
        warnings.warn(
            f"{path}: the last observation of {unknown} of {len(episodes)} episodes is unknown, which Minari cannot "
            "say: it is NaN there (images are black)",
            DataWarning,
            stacklevel=4,
        )
    with whole_folder(path) as draft:
        folder = draft / "data"
        folder.mkdir()
        with h5py.File(folder / MAIN, "w") as file:
            for index in range(len(episodes)):
                _write_episode(file.create_group(f"episode_{index}"), episodes, index, names)
        write_extras(folder, episodes, _EXTRAS)
        size = sum(part.stat().st_size for part in folder.iterdir())
        metadata = _describe(episodes, names) | {"dataset_id": dataset_id, "dataset_size": round(size / 1e6, 1)}
        (folder / METADATA).write_text(json.dumps(metadata), encoding="utf-8")


def _check_names(path: Path, episodes: Episodes, names: dict[str, str]) -> None:
    """Every observation must be readable under the key that it has."""
    for key, name in names.items():
        box = Box((name,), tuple(episodes.obs[key].shape[1:]), is_image(key))
        images = not box.image or is_picture(box.shape)
        if box.key != key or not images or "/" in name or name in (".", "") or list(names.values()).count(name) > 1:
            raise DataError(f"{path}: observation {key} {box.shape} has no name of its own in a Minari dataset")


def _write_episode(group: "h5py.Group", episodes: Episodes, index: int, names: dict[str, str]) -> None:
    start, length = int(episodes.starts[index]), int(episodes.lengths[index])
    rows = slice(start, start + length)
    has_final = bool(episodes.has_final[index])
    group.attrs.update({"id": index, "total_steps": length, RECORDED: has_final})
    if episodes.seed[index] >= 0:
        group.attrs["seed"] = int(episodes.seed[index])
    for key, name in names.items():
        final = episodes.final_obs[key][index]
        if not has_final and final.is_floating_point():
            final = torch.full_like(final, torch.nan)
        values = torch.cat([episodes.obs[key][rows], final[None]])
        _put(group, "observations" if _single(names) else f"observations/{name}", values, is_image(key))
    _put(group, "actions", episodes.action[rows])
    _put(group, "rewards", episodes.reward[rows])
    _put(group, "terminations", episodes.terminated[rows])
    _put(group, "truncations", episodes.truncated[rows])
    succeeded = torch.zeros(length + 1, dtype=torch.bool)  # after the reset, and after every step
    succeeded[-1] = episodes.success[index]
    _put(group, "infos/success", succeeded)


def _put(group: "h5py.Group", name: str, values: Tensor, image: bool = False) -> None:
    array = values.numpy()
    # Chunks of one frame keep random access to images cheap; others are small enough for about 1 MiB each.
    rows = 1 if image else min(len(array), max(1, 2**20 // array[:1].nbytes))
    chunks = (rows, *array.shape[1:])
    group.create_dataset(name, data=array, chunks=chunks, fletcher32=True, compression="gzip" if image else None)


def _single(names: dict[str, str]) -> bool:
    """Whether there is nothing but a state, which then needs no dictionary."""
    return list(names) == ["state"]


def _describe(episodes: Episodes, names: dict[str, str]) -> dict[str, Any]:
    """Content of ``metadata.json``."""
    meta, size = episodes.meta, episodes.action.shape[1]
    spaces = {
        name: box_space(episodes.obs[key].shape[1:], *(("uint8", 0, 255) if is_image(key) else ("float32",)))
        for key, name in names.items()
    }
    whole = spaces["observation"] if _single(names) else {"type": "Dict", "subspaces": spaces}
    action = box_space((size,), "float32")
    for side, bound in (("low", meta.action_low), ("high", meta.action_high)):
        if len(bound) == size:
            action[side] = list(bound)
    env: dict[str, Any] = {
        "id": meta.env_id,
        "entry_point": None,
        "kwargs": meta.env_options,
        "additional_wrappers": [],
    }
    described: dict[str, Any] = {
        "total_episodes": len(episodes),
        "total_steps": episodes.num_steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(whole),
        "action_space": json.dumps(action),
        "env_spec": json.dumps(env) if _ENV_ID.fullmatch(meta.env_id) else None,
        "minari_version": MINARI_VERSION,
        "requirements": [f"{package}=={version}" for package, version in meta.versions.items()],
    }
    if meta.reference_returns is not None:
        described |= dict(zip(("ref_min_score", "ref_max_score"), meta.reference_returns, strict=True))
    return described
