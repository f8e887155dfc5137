"""Make environments and experts by name."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium

from robopol.envs.foreign import family_of, make_foreign
from robopol.envs.locomotion import find_task
from robopol.envs.native import why_not
from robopol.envs.serial import SerialVectorEnv
from robopol.envs.spec import Backend
from robopol.envs.vector import VectorEnv
from robopol.errors import EnvError
from robopol.registry import nearest

if TYPE_CHECKING:
    from robopol.envs.experts.demonstrator import Demonstrator

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
"""Gymnasium id of a task of the arm -> the ``module:class`` of the task and of its expert."""

OWN: dict[str, tuple[str, str]] = {
    **TASKS,
    "robopol/MultiGoal-v0": (
        "robopol.envs.multi_goal:MultiGoal",
        "robopol.envs.experts.multi_goal:MultiGoalExpert",
    ),
}
"""The same of all environments that are robopol's own, those without MuJoCo too."""


def list_envs() -> list[str]:
    """Return the ids of robopol's own environments; `make_env` takes every other gymnasium id too."""
    return sorted(OWN)


def make_env(
    id: str,
    num_envs: int = 1,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
    workers: int = 0,
    cluster: str | None = None,
    device: str | None = None,
    **options: Any,
) -> VectorEnv:
    """Make a batch of equal environments.

    Args:
        id: One of `list_envs`, or an id of `robopol.envs.foreign`: any gymnasium id with boxes of observations and
            actions, and those of other families.
        num_envs: How many.
        backend: How they are stepped: "serial" one after the other; "native" by threads that run MuJoCo without
            Python, for the tasks of the arm and those of `robopol.envs.locomotion.list_tasks`; "auto" natively where
            that is possible. The results are equal. "warp" simulates the same tasks together on a GPU, in float32; see
            ``docs/gpu-simulation.md``.
        threads: How many threads step natively; None is one per usable core, at most one per environment.
        workers: Processes that share the environments; 0 keeps them in this one. The results are equal.
        cluster: Where the workers are: None is this machine; else the address of a Ray cluster; see
            `robopol.envs.ray.RayVectorEnv`.
        device: Where "warp" simulates and keeps its tensors, such as "cuda:1"; None is the GPU where there is one.
        **options: The fields of `robopol.envs.spec.TaskOptions` for a task of the arm, of
            `robopol.envs.multi_goal.MultiGoalOptions` for that world, or what the family takes for another id.

    Returns:
        The batch; no slot is reset yet.

    Raises:
        EnvError: If there is no such environment (the nearest names are given), or it does not fit.
        ConfigError: If an option does not exist or has a wrong value.
    """
    if num_envs < 1:
        raise EnvError(f"num_envs must be at least 1, got {num_envs}")
    if threads is not None and threads < 1:
        raise EnvError(f"threads must be at least 1, got {threads}")
    if device is not None and backend != "warp":
        raise EnvError(f"device='{device}' is for backend='warp'; backend='{backend}' simulates on the CPU")
    if backend == "warp":
        if threads or workers or cluster:
            raise EnvError("backend='warp' simulates all worlds as one: leave out threads, workers and cluster")
        return _make_warp(id, num_envs, options, device)
    alone = partial(make_env, id, backend=backend, threads=threads or 1, **options)
    if cluster is not None:
        from robopol.envs.ray import RayVectorEnv

        return RayVectorEnv(alone, num_envs, workers, cluster)
    if workers:
        from robopol.envs.processes import ProcessVectorEnv

        return ProcessVectorEnv(alone, num_envs, workers)
    if backend == "auto":
        backend = "serial" if _why_not_native(id, options) else "native"
    if backend not in _BACKENDS:
        raise EnvError(
            f"there is no backend '{backend}'{nearest(backend, _BACKENDS)}; choose auto, warp, {', '.join(_BACKENDS)}"
        )
    return _BACKENDS[backend](id, num_envs, options, threads)


def make_expert(env_id: str, way: str | None = None, noise: float | None = None) -> "Demonstrator":
    """Make the scripted expert of an environment; use one expert per environment slot.

    Args:
        env_id: One of `list_envs`, or an id of a family that has experts; see ``docs/worlds.md``.
        way: The way that it takes, a name of the task's ``way_names``; None draws one at every reset.
        noise: Standard deviation of the noise on the executed action, m (in other families: in shares of half the
            width of an action's bounds); None is the expert's default, 0 is none.

    Returns:
        The expert: ``reset(env, rng)``, then ``act(env)`` for every step, where ``env`` is a single
        environment such as ``vector_env.envs[slot]``.

    Raises:
        EnvError: If the environment has no expert or no such way.
    """
    made: Demonstrator
    if env_id in TASKS:
        task, expert = (_load(name) for name in TASKS[env_id])
        made = expert(task.way_names, way=way, noise=noise)
        return made
    name = OWN[env_id][1] if env_id in OWN else family_of(env_id).expert(env_id)
    if name is None:
        raise EnvError(
            f"'{env_id}' has no expert{nearest(env_id, OWN)}; those that have: {', '.join(list_envs())}, and of "
            "other families metaworld/..., PointMaze_..., cube-..., puzzle-... and pointmaze-..."
        )
    made = _load(name)(way=way, noise=noise)
    return made


def register() -> None:
    """Tell gymnasium of robopol's environments, for ``gymnasium.make``."""
    for id, (entry_point, _) in OWN.items():
        if id not in gymnasium.registry:
            # Truncation is the task's own: its limit is an option.
            gymnasium.register(id, entry_point=entry_point)


def _make_serial(id: str, num_envs: int, options: dict[str, Any], threads: int | None) -> VectorEnv:
    envs = [_make_one(id, options) for _ in range(num_envs)]
    return SerialVectorEnv(envs, envs[0].env_spec)


def _make_one(id: str, options: dict[str, Any]) -> Any:
    return _load(OWN[id][0])(**options) if id in OWN else make_foreign(id, options)


def _make_native(id: str, num_envs: int, options: dict[str, Any], threads: int | None) -> VectorEnv:
    reason = _why_not_native(id, options)
    if reason:
        raise EnvError(reason)
    if id in TASKS:
        from robopol.envs.native.arm import NativeTasks

        return NativeTasks([_make_one(id, options) for _ in range(num_envs)], threads)
    from robopol.envs.native.locomotion import NativeLocomotion

    return NativeLocomotion(_make_one(id, options), num_envs, threads)


def _make_warp(id: str, num_envs: int, options: dict[str, Any], device: str | None) -> VectorEnv:
    import torch

    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise EnvError(f"there is no device '{device}': {error}") from error
    if id in TASKS:
        from robopol.envs.warp.arm import WarpTasks

        return WarpTasks(_make_one(id, options), num_envs, place)
    if find_task(id, options) is None:
        raise EnvError(
            f"'{id}' cannot be simulated by MuJoCo Warp with {options or 'no options'}; leave out the backend"
        )
    from robopol.envs.warp.locomotion import WarpLocomotion

    return WarpLocomotion(_make_one(id, options), num_envs, place)


def _why_not_native(id: str, options: dict[str, Any]) -> str | None:
    if id not in TASKS and find_task(id, options) is None:
        return f"'{id}' cannot be stepped natively with {options or 'no options'}; use backend='serial'"
    return why_not()


_BACKENDS: dict[str, Callable[[str, int, dict[str, Any], int | None], VectorEnv]] = {
    "native": _make_native,
    "serial": _make_serial,
}


def _load(name: str) -> Any:
    module, cls = name.split(":")
    return getattr(importlib.import_module(module), cls)
