"""Which of gymnasium's environments have a definition here."""

import importlib
from collections.abc import Mapping
from numbers import Real
from typing import Any

import gymnasium

from robopol.envs.locomotion.task import Locomotion

TASKS: dict[str, str] = {
    "Ant-v5": "ant:Ant",
    "HalfCheetah-v5": "planar:HalfCheetah",
    "Hopper-v5": "planar:Hopper",
    "Humanoid-v5": "humanoid:Humanoid",
    "HumanoidStandup-v5": "humanoid:HumanoidStandup",
    "InvertedDoublePendulum-v5": "pendulum:InvertedDoublePendulum",
    "InvertedPendulum-v5": "pendulum:InvertedPendulum",
    "Pusher-v5": "reaching:Pusher",
    "Reacher-v5": "reaching:Reacher",
    "Swimmer-v5": "planar:Swimmer",
    "Walker2d-v5": "planar:Walker2d",
}
"""Gymnasium id -> module of this package and class."""

_APPEARANCE = {"default_camera_config", "visual_options", "width", "height", "camera_id", "camera_name", "max_geom"}


def list_tasks() -> list[str]:
    """Return the ids that have a definition."""
    return sorted(TASKS)


def find_task(id: str, options: Mapping[str, Any]) -> type[Locomotion] | None:
    """Find the definition that says what gymnasium's own environment of an id would say.

    Args:
        id: A gymnasium id.
        options: What ``gymnasium.make`` would be given.

    Returns:
        The class; None if there is none, if the id was registered anew, or if an option asks for another
        model, for a window, or for anything that is not a number, a word or a few numbers.
    """
    if id not in TASKS or not all(name in _APPEARANCE or _plain(value) for name, value in options.items()):
        return None
    module, name = TASKS[id].split(":")
    task: type[Locomotion] = getattr(importlib.import_module(f"robopol.envs.locomotion.{module}"), name)
    spec = gymnasium.spec(id)
    standard = spec.entry_point == task.entry_point and not spec.additional_wrappers
    return task if standard and "xml_file" not in options and options.get("render_mode") != "human" else None


def _plain(value: Any) -> bool:
    parts = value if isinstance(value, list | tuple) else (value,)
    return all(part is None or isinstance(part, str | Real) for part in parts)
