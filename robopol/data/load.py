"""Reading and writing episodes by URI: ``format:path?option=value&...``, or a path whose suffix tells."""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

from robopol.data.episodes import Episodes
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
"""Format -> module with ``read`` and, where it can write, ``write``."""

SUFFIXES = {".hdf5": "robomimic", ".h5": "robomimic", ".zarr": "zarr"}
"""Suffix of a path without a format -> the format."""


def load_episodes(uri: str | Path, **options: str) -> Episodes:
    """Read a dataset.

    Args:
        uri: E.g. ``demos.hdf5``, ``robomimic:lift/low_dim.hdf5?dones=success&filter=train``. What a format
            can be asked is said by its ``read``.
        **options: The same options as keywords.

    Returns:
        The episodes, on the CPU.

    Raises:
        DataError: If the URI, an option or the file is wrong; the file and the key are named. There is never
            half a dataset.
    """
    module, path, options = _resolve(uri, options)
    _check_options(module.read, options)
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
    module, path, options = _resolve(uri, options)
    _check_options(module.write, options)
    module.write(episodes, path, **options)


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


def _check_options(function: Any, options: dict[str, str]) -> None:
    known = list(inspect.signature(function).parameters.values())
    names = [parameter.name for parameter in known if parameter.kind is parameter.KEYWORD_ONLY]
    for name in options:
        if name not in names:
            raise DataError(f"unknown option '{name}'{nearest(name, names)}; known: {', '.join(names)}")
