"""gymnasium-robotics: Fetch, PointMaze, AntMaze, Adroit hand, Franka kitchen, Shadow hand.

What upstream leaves open or surprises with:

* Mazes and Fetch never terminate by default (upstream's ``continuing_task``): the episode goes on at the goal until
  its time limit, and has succeeded if it was there once. ``continuing_task=False`` ends a maze on arrival.
* The kitchen says which tasks were completed, not whether all were: an episode succeeds when all that were asked for
  are done; which these are is the option ``tasks_to_complete``.
* Adroit's goals are places in the model itself (the door's frame, the nail's board), not in MuJoCo's state.
"""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robopol.envs.foreign.plain import upstream
from robopol.envs.foreign.world import World


class Goal(World):
    """Fetch and the Shadow hand: a goal that upstream keeps beside MuJoCo's state."""

    packages = ("gymnasium-robotics",)

    def memory(self) -> list[NDArray[Any]]:
        """The goal."""
        return [self.unwrapped.goal]  # type: ignore[attr-defined]


class Fetch(Goal):
    """Move, push, slide or pick and place with a Fetch arm."""

    @property
    def action_names(self) -> tuple[str, ...]:
        """Differences of the gripper's position in units of 5 cm, and the fingers."""
        return ("x [5 cm]", "y [5 cm]", "z [5 cm]", "gripper")


class Maze(Goal):
    """A point or an ant in a maze."""

    def look(self) -> Any:
        """Ask the body inside the maze."""
        return self.unwrapped._get_obs(_first(self._body._get_obs()))  # type: ignore[attr-defined]

    @property
    def control_hz(self) -> float:
        """Actions a second, of the body inside the maze."""
        return 1.0 / float(self._body.dt)

    @property
    def _body(self) -> Any:
        inner: Any = self.unwrapped
        return inner.point_env if hasattr(inner, "point_env") else inner.ant_env


class Adroit(World):
    """The Shadow hand of Rajeswaran et al. (RSS 2018): door, hammer, pen, relocate."""

    packages = ("gymnasium-robotics",)

    _drawn = (
        ("body_pos", "door_body_id"),
        ("body_pos", "target_body_id"),
        ("body_quat", "target_obj_body_id"),
        ("body_pos", "obj_body_id"),
        ("site_pos", "target_obj_site_id"),
    )
    """Column of the model, attribute of the environment that says which row a reset draws."""

    def memory(self) -> list[NDArray[Any]]:
        """Where the reset put what is fixed during an episode."""
        inner: Any = self.unwrapped
        rows = [(getattr(inner.model, column), getattr(inner, name, None)) for column, name in self._drawn]
        return [column[row] for column, row in rows if row is not None]


class Kitchen(World):
    """The Franka kitchen of Gupta et al. (CoRL 2019): several tasks in one episode."""

    packages = ("gymnasium-robotics",)

    def __init__(self, *args: Any) -> None:
        """See `World`."""
        super().__init__(*args)
        self._tasks: list[str] = sorted(self.unwrapped.goal)  # type: ignore[attr-defined]
        self._done = np.zeros(len(self._tasks))

    def begin(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        """Forget what was done."""
        self._done[:] = 0.0
        return super().begin(seed, options)

    def succeeded(self) -> bool:
        """Say whether all tasks were done in this episode."""
        done = self.latest_info["episode_task_completions"]
        self._done[:] = [task in done for task in self._tasks]
        return bool(self._done.all())

    def memory(self) -> list[NDArray[Any]]:
        """Which tasks were done."""
        return [self._done]

    def look(self) -> Any:
        """Take over which tasks are done, and observe."""
        inner: Any = self.unwrapped
        done = [task for task, flag in zip(self._tasks, self._done, strict=True) if flag]
        inner.episode_task_completions[:] = done
        if inner.remove_task_when_completed:
            inner.tasks_to_complete = set(self._tasks) - set(done)
        return inner._get_obs(inner.robot_env._get_obs())

    @property
    def control_hz(self) -> float:
        """Actions a second, of the robot inside."""
        return 1.0 / float(self.unwrapped.robot_env.dt)  # type: ignore[attr-defined]


KINDS: dict[str, type[World]] = {
    "Fetch": Fetch,
    "PointMaze": Maze,
    "AntMaze": Maze,
    "AdroitHand": Adroit,
    "FrankaKitchen": Kitchen,
    "Hand": Goal,
}
"""Prefix of an id -> its adapter."""


def make(id: str, options: dict[str, Any]) -> World:
    """Make one environment; options are upstream's, e.g. ``reward_type="dense"``."""
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    kind = next(kind for prefix, kind in KINDS.items() if id.startswith(prefix))
    env, limit = upstream(id, options)
    return kind(env, id, options, limit)


def _first(observation: Any) -> Any:
    """Return the observation where upstream returns it together with an info."""
    return observation[0] if isinstance(observation, tuple) else observation
