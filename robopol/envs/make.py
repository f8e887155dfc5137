"""Make environments and experts by name."""

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

from robopol.envs.foreign import make_foreign
from robopol.envs.serial import SerialVectorEnv
from robopol.envs.vector import VectorEnv
from robopol.errors import EnvError
from robopol.registry import nearest

if TYPE_CHECKING:
    from robopol.envs.experts.expert import Expert

TASKS: dict[str, tuple[str, str]] = {
    "robopol/PickPlace-v0": (
        "robopol.envs.pick_place:PickPlace",
        "robopol.envs.experts.pick_place:PickPlaceExpert",
    ),
    "robopol/Push-v0": ("robopol.envs.push:Push", "robopol.envs.experts.push:PushExpert"),
    "robopol/PushT-v0": ("robopol.envs.push_t:PushT", "robopol.envs.experts.push_t:PushTExpert"),
    "robopol/Reach-v0": ("robopol.envs.reach:Reach", "robopol.envs.experts.reach:ReachExpert"),
    "robopol/Stack-v0": ("robopol.envs.stack:Stack", "robopol.envs.experts.stack:StackExpert"),
}
"""Gymnasium id -> the ``module:class`` of the task and of its expert."""


def list_envs() -> list[str]:
    """Return the ids of robopol's own environments; `make_env` takes every other gymnasium id too."""
    return sorted(TASKS)


def make_env(id: str, num_envs: int = 1, **options: Any) -> VectorEnv:
    """Make a batch of equal environments.

    Args:
        id: One of `list_envs`, or any gymnasium id with a flat box of observations and a box of actions.
        num_envs: How many.
        **options: The fields of `robopol.envs.spec.TaskOptions`, or what ``gymnasium.make`` takes for another
            id.

    Returns:
        The batch; no slot is reset yet.

    Raises:
        EnvError: If there is no such environment (the nearest names are given), or it does not fit.
        ConfigError: If an option does not exist or has a wrong value.
    """
    if num_envs < 1:
        raise EnvError(f"num_envs must be at least 1, got {num_envs}")
    if id in TASKS:
        task = _load(TASKS[id][0])
        tasks = [task(**options) for _ in range(num_envs)]
        return SerialVectorEnv(tasks, tasks[0].env_spec)
    others, spec = make_foreign(id, num_envs, options)
    return SerialVectorEnv(others, spec)


def make_expert(env_id: str, way: str | None = None, noise: float | None = None) -> "Expert":
    """Make the scripted expert of one of robopol's environments; use one expert per environment slot.

    Args:
        env_id: One of `list_envs`.
        way: The way that it takes, a name of the task's ``way_names``; None draws one at every reset.
        noise: Standard deviation of the noise on the executed action, m; None is the expert's default, 0 is
            none.

    Returns:
        The expert: ``reset(env, rng)``, then ``act(env)`` for every step, where ``env`` is a single
        environment such as ``vector_env.envs[slot]``.

    Raises:
        EnvError: If the environment has no expert or no such way.
    """
    if env_id not in TASKS:
        raise EnvError(f"'{env_id}' has no expert{nearest(env_id, TASKS)}; those that have: {', '.join(list_envs())}")
    task, expert = (_load(name) for name in TASKS[env_id])
    made: Expert = expert(task.way_names, way=way, noise=noise)
    return made


def register() -> None:
    """Tell gymnasium of robopol's environments, for ``gymnasium.make``."""
    for id, (entry_point, _) in TASKS.items():
        if id not in gymnasium.registry:
            # Truncation is the task's own: its limit is an option.
            gymnasium.register(id, entry_point=entry_point)


def _load(name: str) -> Any:
    module, cls = name.split(":")
    return getattr(importlib.import_module(module), cls)
