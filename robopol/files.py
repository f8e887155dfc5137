"""Files that are either there whole or not there at all."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".incomplete-"
"""Names with this prefix are leftovers of a killed write and may be deleted."""


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Write a folder that appears under its name only once everything in it is on disk.

    Args:
        path: The final name; its parent is created, an older folder of that name is replaced.

    Yields:
        The folder to write into. If the block raises, nothing appears.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{TEMPORARY}{path.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    for folder, _, names in os.walk(draft, topdown=False):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))
    if path.exists():
        old = path.with_name(f"{TEMPORARY}old-{path.name}")
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        draft.rename(path)
        shutil.rmtree(old)
    else:
        draft.rename(path)
    _sync(path.parent)


def occupied(path: Path, marker: str) -> bool:
    """Say whether something would be lost if a folder took this name: all but an older one of its kind, or nothing.

    Args:
        path: The name.
        marker: A file that every folder of the kind has, relative to it.
    """
    return path.exists() and not (path / marker).is_file() and not (path.is_dir() and not any(path.iterdir()))


def why_not_in(folder: Path) -> str | None:
    """Say why nothing can be written into a folder, which need not exist yet; None if it can."""
    try:
        place = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryFile(dir=place):  # permissions alone do not tell: a file system may be read-only
            return None
    except OSError as error:
        return f"nothing can be written into {folder}: {error.strerror}"


def why_not_written(path: Path) -> str | None:
    """Say why no file can be written under a name, be it a new one or in place of an older one; None if it can."""
    return f"{path} is a folder; name a file" if path.is_dir() else why_not_in(path.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file that appears under its name only once all of it is on disk.

    Args:
        path: The final name; its parent is created, an older file of that name is replaced.

    Yields:
        The name to write to. If the block raises, nothing changes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        yield draft
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync(draft)
    os.replace(draft, path)
    _sync(path.parent)


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def point(link: Path, target: str) -> None:
    """Make ``link`` a relative symbolic link to ``target``, replacing an older one in one step."""
    draft = link.with_name(f"{TEMPORARY}{link.name}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    os.replace(draft, link)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def git_state() -> dict[str, Any] | None:
    """Return ``commit`` and ``dirty`` of the working directory, or None if it is not a git checkout."""
    # without optional locks, status cannot disturb a git command of the user's that runs beside it
    command = ["git", "--no-optional-locks"]
    try:
        commit, changes = (
            subprocess.run([*command, *verb], capture_output=True, text=True, timeout=20, check=True).stdout
            for verb in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}
