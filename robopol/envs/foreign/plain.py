"""Any gymnasium id with boxes of observations and actions, MuJoCo's v5 tasks among them.

Success is what ``info["success"]`` or ``info["is_success"]`` says, and never where upstream says nothing (MuJoCo's
locomotion): the wrapper ``success`` defines one by the reward or the return.
"""

from typing import Any

import gymnasium

from robopol.envs.foreign.world import World
from robopol.errors import EnvError
from robopol.registry import nearest


def make(id: str, options: dict[str, Any]) -> World:
    """Make one environment; see `upstream` for the options."""
    env, limit = upstream(id, options)
    return World(env, id, options, limit)


def upstream(id: str, options: dict[str, Any]) -> tuple[gymnasium.Env[Any, Any], int]:
    """Make a registered environment without its time limit, which `robopol.envs.foreign.world.World` keeps.

    Args:
        id: A registered id.
        options: What ``gymnasium.make`` takes. ``max_episode_steps`` replaces the registered limit (-1 is none), and
            ``render_mode`` is "rgb_array" unless said otherwise, where the environment knows it.

    Returns:
        The environment and its limit of steps, 0 for none.

    Raises:
        EnvError: If the id is unknown or the environment cannot be made.
    """
    try:
        spec = gymnasium.spec(id)
    except gymnasium.error.Error as error:
        raise EnvError(
            f"there is no environment '{id}'{nearest(id, gymnasium.registry)}; `robopol list envs` names robopol's own "
            "and the families of others"
        ) from error
    given = dict(options)
    limit = given.pop("max_episode_steps", spec.max_episode_steps) or 0
    if not isinstance(limit, int) or limit < -1:
        raise EnvError(f"'{id}': max_episode_steps must be a number of steps, or -1 for no limit, got {limit!r}")
    try:
        entry: Any = spec.entry_point
        creator = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
        if "rgb_array" in getattr(creator, "metadata", {}).get("render_modes", ()):
            given.setdefault("render_mode", "rgb_array")
        env = gymnasium.make(id, max_episode_steps=-1, disable_env_checker=True, **given)
    except (gymnasium.error.Error, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise EnvError(f"gymnasium cannot make '{id}' with {options or 'no options'}: {error}") from error
    return env, max(limit, 0)
