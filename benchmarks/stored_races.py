"""The results' file of races: each race is kept with where it was run, so that some of them can be run again."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from robopol.files import write_json
from robopol.training.environment import cpu_model


def where(packages: Iterable[str]) -> dict[str, Any]:
    """Return what is said of a race beside its figures: this machine, and the versions of what took part."""
    return {
        "machine": {"processor": cpu_model(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
    }


def store(path: Path, found: Mapping[str, Mapping[str, Any]], told: Mapping[str, Any]) -> None:
    """Put races into a results' file; others that are in it stay, as do those of which no round was kept now.

    Args:
        path: The file; ``races`` holds name -> race.
        found: Name -> race, as `rounds_kept`, `rounds_dropped` and `rows`.
        told: What is said of each; see `where`.
    """
    races = json.loads(path.read_text(encoding="utf-8"))["races"] if path.exists() else {}
    kept = {name: {**told, **race} for name, race in found.items() if race["rounds_kept"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"races": races | kept})


def told(races: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return lines of the page that say where races were run, one line for each place, with their rounds."""
    places: dict[str, list[str]] = {}
    for name, race in races.items():
        versions = ", ".join(f"{package} {number}" for package, number in race["versions"].items())
        place = f"{race['machine']['cores']} cores, {race['machine']['processor']}, Python {race['python']}, {versions}"
        dropped = f", {race['rounds_dropped']} dropped" if race["rounds_dropped"] else ""
        places.setdefault(place, []).append(f"{name} ({race['rounds_kept']} rounds{dropped})")
    return [f"* {place}: {', '.join(names)}" for place, names in places.items()]
