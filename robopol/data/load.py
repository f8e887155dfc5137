"""Reading and writing episodes by URI: ``format:path?option=value&...``, or a path whose suffix tells."""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

from robopol.data.cache import cached
from robopol.data.episodes import Episodes
from robopol.data.formats import arrays
from robopol.data.image_columns import columns_in_memory
from robopol.data.sources import is_id, known_options
from robopol.errors import DataError
from robopol.registry import nearest

FORMATS = {
    "arrays": "robopol.data.formats.arrays",
    "d4rl": "robopol.data.formats.d4rl",
    "dppo": "robopol.data.formats.dppo",
    "lerobot": "robopol.data.formats.lerobot",
    "minari": "robopol.data.formats.minari",
    "ogbench": "robopol.data.formats.ogbench",
    "robomimic": "robopol.data.formats.robomimic",
    "zarr": "robopol.data.formats.zarr",
}
"""Format -> module with ``read`` and, where it can write, ``write`` and ``check_target``."""

SUFFIXES = {".hdf5": "robomimic", ".h5": "robomimic", ".zarr": "zarr"}
"""Suffix of a path without a format -> the format."""


def load_episodes(uri: str | Path, *, cache: str | Path | None = None, **options: str) -> Episodes:
    """Read a dataset.

    Args:
        uri: E.g. ``demos.hdf5``, ``robomimic:lift/low_dim.hdf5?dones=success&filter=train``. What a format
            can be asked is said by its ``read``. Where there is no such path, the name of a dataset that can
            be downloaded, e.g. ``d4rl:hopper-medium-v2``; see `robopol.data.sources`.
        cache: A folder for datasets with more images than fit into memory: the dataset is converted once and its
            images stay in files there; see `robopol.data.cache`.
        **options: The same options as keywords.

    Returns:
        The episodes, on the CPU.

    Raises:
        DataError: If the URI, an option or the file is wrong; the file and the key are named. There is never
            half a dataset. Also if the images do not fit into memory and no cache was named.
    """
    module, path, options = _resolve(uri, options)
    _check_options(module.read, options)
    path, options = _located(module, path, options)
    if cache is not None and module is not arrays:
        return cached(Path(cache).expanduser(), path, module.read, options, module.__name__)
    with columns_in_memory():
        episodes: Episodes = module.read(path, **options)
    return episodes


def save_episodes(episodes: Episodes, uri: str | Path, **options: str) -> None:
    """Write a dataset; an existing file is replaced only once the new one is whole.

    Args:
        episodes: What to write.
        uri: As for `load_episodes`; options are those of the format's ``write``.
        **options: The same options as keywords.

    Raises:
        DataError: If the URI or an option is wrong, or the format cannot hold these episodes.
    """
    module, path, options = _writer(uri, options)
    module.write(episodes, path, **options)


def check_writable(uri: str | Path, **options: str) -> Path:
    """Refuse, before there is anything to write, what `save_episodes` would refuse whatever the episodes are.

    Args:
        uri: As for `save_episodes`.
        **options: As for `save_episodes`.

    Returns:
        Where the dataset will be.

    Raises:
        DataError: If the URI or an option is wrong, the format is not written, something else is there, or nothing
            can be written there.
        MissingExtraError: If the format needs a package that is not installed.
    """
    module, path, options = _writer(uri, options)
    module.check_target(path, **options)
    return path


def _resolve(uri: str | Path, keywords: dict[str, str]) -> tuple[ModuleType, Path, dict[str, str]]:
    """Split a URI into the format's module, the path and the options."""
    text, _, query = str(uri).partition("?") if isinstance(uri, str) else (str(uri), "", "")
    options: dict[str, str] = {}
    for part in query.split("&") if query else []:
        name, equals, value = part.partition("=")
        if not equals or name in options or name in keywords:
            raise DataError(f"cannot read option '{part}' of {uri}: each is name=value and comes once")
        options[name] = unquote(value)
    # Two letters at least: one is a drive.
    match = re.match(r"([A-Za-z][\w+-]+):(?=.)", text)
    if match:
        kind, path = match[1], Path(text[match.end() :])
        if kind not in FORMATS:
            raise DataError(f"unknown format '{kind}'{nearest(kind, FORMATS)} of {uri}; known: {', '.join(FORMATS)}")
    else:
        path = Path(text)
        if path.suffix not in SUFFIXES:
            raise DataError(
                f"the suffix of {uri} does not tell the format; write <format>:{text} with a format of "
                f"{', '.join(FORMATS)}, or use a suffix of {', '.join(SUFFIXES)}"
            )
        kind = SUFFIXES[path.suffix]
    return importlib.import_module(FORMATS[kind]), path.expanduser(), options | keywords


def _writer(uri: str | Path, keywords: dict[str, str]) -> tuple[ModuleType, Path, dict[str, str]]:
    """Split a URI that is written to; see `_resolve`."""
    module, path, options = _resolve(uri, keywords)
    if not hasattr(module, "write"):
        raise DataError(f"robopol reads the format of {uri} but does not write it; write e.g. robomimic:PATH instead")
    _check_options(module.write, options)
    return module, path, options


def _located(module: ModuleType, path: Path, options: dict[str, str]) -> tuple[Path, dict[str, str]]:
    """Return path and options; where there is no such path, but a dataset of that name, those of the dataset."""
    source, name = module.__name__.rpartition(".")[2], path.as_posix()
    if path.exists() or not is_id(source, name):
        return path, options
    kept = getattr(module, "datasets_folder", None)  # where the format's own tool keeps datasets by name
    if kept is not None and (kept() / path).exists():
        return kept() / path, options
    from robopol.data.download import download

    return download(source, name), known_options(source, name) | options


def _check_options(function: Any, options: dict[str, str]) -> None:
    known = list(inspect.signature(function).parameters.values())
    names = [parameter.name for parameter in known if parameter.kind is parameter.KEYWORD_ONLY]
    for name in options:
        if name not in names:
            raise DataError(f"unknown option '{name}'{nearest(name, names)}; known: {', '.join(names)}")
