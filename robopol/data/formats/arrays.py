"""Arrays on disk: a folder with one ``.npy`` file a column and a ``meta.json``; images stay there and are mapped.

A dataset larger than memory is read in this format: low-dim columns are loaded, images are paged in by the system
when a batch needs them (``numpy.load`` with ``mmap_mode="r"``). Any other format is converted to it by
``load_episodes(uri, cache=FOLDER)``.

``meta.json`` holds ``version``, ``columns`` (name -> dtype and shape, names as in `Episodes.step_columns` and
`Episodes.episode_columns`) and ``meta``; the file of a column is its name, percent-encoded.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from robopol.config import parse
from robopol.data.episodes import Episodes, EpisodesMeta, is_image
from robopol.data.formats.target import check_folder
from robopol.errors import DataError
from robopol.files import whole_folder, write_json

VERSION = 1
META = "meta.json"


def read(path: Path) -> Episodes:
    """Read a folder of arrays.

    Args:
        path: The folder; it must stay as it is while the episodes are used.

    Returns:
        The episodes. Images lie in the files and cannot be written to.

    Raises:
        DataError: If the folder is damaged or incomplete.
    """
    if not (path / META).is_file():
        raise DataError(f"{path} is not a folder of arrays: there is no {META} in it")
    try:
        tree = json.loads((path / META).read_text(encoding="utf-8"))
        if tree.get("version") != VERSION:
            raise DataError(f"the arrays are of version {tree.get('version')}; this robopol reads version {VERSION}")
        columns = {name: _load(path, name, told) for name, told in tree["columns"].items()}
        parts = {part: _pop(columns, f"{part}.") for part in ("obs", "final_obs")}
        return Episodes(meta=parse(EpisodesMeta, tree["meta"]), **parts, **columns)  # type: ignore[arg-type]
    except Exception as error:  # a damaged file can make numpy raise nearly anything
        raise DataError(f"{path}: {error}") from error


def write(episodes: Episodes, path: Path) -> None:
    """Write a folder of arrays; an older one is replaced only once the new one is whole.

    Args:
        episodes: What to write; at least one episode.
        path: The folder.

    Raises:
        DataError: If there are no episodes, or the folder holds something else.
    """
    check_target(path)
    with whole_folder(path) as draft:
        put(episodes, draft, {})


def check_target(path: Path) -> None:
    """Raise what `write` would raise whatever the episodes are."""
    check_folder(path, META)


def put(episodes: Episodes, folder: Path, files: Mapping[int, Path]) -> None:
    """Write into an existing folder.

    Args:
        episodes: What to write; at least one episode.
        folder: An empty folder, or one that holds ``files`` alone.
        files: Address of a column -> a file of the folder that already is that column; it is renamed.
    """
    if not len(episodes):
        raise DataError(f"{folder}: a folder of arrays needs at least one episode")
    columns = episodes.step_columns() | episodes.episode_columns()
    left = dict(files)
    for name, column in columns.items():
        file = left.pop(column.data_ptr(), None)
        if file is not None and np.load(file, mmap_mode="r").shape == column.shape:
            file.rename(_file(folder, name))
        else:
            np.save(_file(folder, name), column.cpu().numpy())
    for file in left.values():  # a reader allocated it and took another
        file.unlink()
    told = {name: [str(column.dtype).removeprefix("torch."), list(column.shape)] for name, column in columns.items()}
    write_json(folder / META, {"version": VERSION, "columns": told, "meta": episodes.meta.tree()})


def _load(folder: Path, name: str, told: list[object]) -> Tensor:
    # mapped first in any case: a header that declares more than there is fails before memory is asked for
    array = np.load(_file(folder, name), mmap_mode="r", allow_pickle=False)
    if [str(array.dtype), list(array.shape)] != told:
        raise DataError(f"{_file(folder, name).name} holds {array.dtype} {array.shape}; {META} says {told}")
    if not is_image(name.removeprefix("final_").removeprefix("obs.")):
        return torch.from_numpy(np.array(array))
    with warnings.catch_warnings():
        # Episodes are never written to. Copy-on-write maps would be writable, but count as memory.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _pop(columns: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): columns.pop(name) for name in list(columns) if name.startswith(prefix)}


def _file(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.npy"
