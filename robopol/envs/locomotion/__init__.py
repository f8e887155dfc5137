"""Gymnasium's standard MuJoCo tasks as functions of arrays, for simulators that step many worlds at once."""

from robopol.envs.locomotion.task import Fields, Locomotion
from robopol.envs.locomotion.tasks import find_task, list_tasks

__all__ = ["Fields", "Locomotion", "find_task", "list_tasks"]
