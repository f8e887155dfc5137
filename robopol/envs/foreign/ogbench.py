"""OGBench: mazes and table scenes for offline goal-conditioned learning (Park et al., ICLR 2025).

Ids are those of the environments (``cube-single-v0``) or of their datasets (``cube-single-play-v0``). Upstream hands
the goal over at a reset; here it is observed as "goal" throughout the episode. Tasks with one fixed goal
(``...-singletask-v0``) have no such key. Success is ``info["success"]``; upstream ends the episode there.

Upstream draws tasks and goals from numpy's global generator and from action spaces that nobody seeded, so that a seed
does not determine an episode. `OGBench` lends it a stream of its own, seeded at every reset: here a seed does.
"""

import warnings
from contextlib import AbstractContextManager
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from robopol.envs.foreign.plain import upstream
from robopol.envs.foreign.world import GlobalStream, World
from robopol.envs.rendering import load_triton, offer_backend
from robopol.errors import EnvError

DATASETS = ("navigate", "stitch", "explore", "play", "noisy")
"""The words by which names of datasets are longer than those of their environments."""

_FLAGS = ("_cur_button_states", "_target_button_states")
"""Arrays of scenes and puzzles that are not in MuJoCo's state."""


class OGBench(World):
    """One environment."""

    camera = "front"
    packages = ("ogbench", "dm-control")

    def __init__(self, env: gymnasium.Env[Any, Any], *args: Any) -> None:
        """See `World`."""
        self._stream = GlobalStream()
        self._goal: NDArray[Any] | None = None
        inner: Any = env.unwrapped
        with self._stream.lent():
            if isinstance(getattr(type(inner), "action_space", None), property):
                # Upstream makes a new space, unseeded, at every look at it, and samples from it in a reset.
                space = inner.action_space
                inner.__class__ = type(type(inner).__name__, (type(inner),), {"action_space": space})
            inner.action_space.seed(0)
            _, info = env.reset(seed=0)
        self._conditioned = getattr(inner, "_reward_task_id", None) is None
        self._goal = np.array(info["goal"]) if self._conditioned else None
        super().__init__(env, *args)

    def scope(self) -> AbstractContextManager[None]:
        """Lend upstream its stream of random numbers."""
        return self._stream.lent()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See `World.reset`; seeds what upstream leaves unseeded."""
        if seed is not None:
            self._stream.seed(seed)
            self.unwrapped.action_space.seed(seed)
        return super().reset(seed=seed, options=options)

    def begin(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        """Keep the goal."""
        observation, info = super().begin(seed, options)
        if self._goal is not None:
            self._goal[...] = info["goal"]
        return observation, info

    def more_space(self) -> dict[str, spaces.Space[Any]]:
        """The goal, as upstream represents it."""
        if self._goal is None:
            return {}
        if self._goal.dtype == np.uint8:
            return {"images.goal": spaces.Box(0, 255, self._goal.shape, np.uint8)}
        return {"goal": spaces.Box(-np.inf, np.inf, self._goal.shape, np.float32)}

    def more(self) -> dict[str, Any]:
        """The goal."""
        return {} if self._goal is None else {"goal": self._goal}

    def memory(self) -> list[NDArray[Any]]:
        """The goal, and what scenes and mazes keep outside MuJoCo."""
        inner: Any = self.unwrapped
        found = [] if self._goal is None else [self._goal]
        if hasattr(inner, "cur_goal_xy"):
            inner.cur_goal_xy = np.array(inner.cur_goal_xy, dtype=np.float64)
            found.append(inner.cur_goal_xy)
        return found + [getattr(inner, name) for name in _FLAGS if isinstance(getattr(inner, name, None), np.ndarray)]

    def appended(self) -> list[NDArray[Any]]:
        """The states of the buttons, as the datasets' ``button_states``."""
        buttons = getattr(self.unwrapped, _FLAGS[0], None)
        return [buttons] if isinstance(buttons, np.ndarray) else []

    def look(self) -> Any:
        """Observe, having brought up to date what upstream keeps of the state."""
        inner: Any = self.unwrapped
        if hasattr(inner, "get_ob"):
            inner.set_goal(goal_xy=inner.cur_goal_xy)
            return inner.get_ob()
        for buttons in self.appended():
            if not np.isin(buttons, (0, 1)).all():
                raise EnvError(f"{self.id}: the state has buttons {buttons.tolist()}; each must be 0 or 1")
        inner.pre_step()
        inner.post_step()
        return inner.compute_observation()

    @property
    def control_hz(self) -> float:
        """Actions a second."""
        inner: Any = self.unwrapped
        return 1.0 / float(inner.dt if hasattr(inner, "dt") else inner._control_timestep)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Differences of the gripper's pose for table scenes."""
        if hasattr(self.unwrapped, "dt"):
            return super().action_names
        return ("x [5 cm]", "y [5 cm]", "z [5 cm]", "yaw [0.3 rad]", "gripper")


def make(id: str, options: dict[str, Any]) -> World:
    """Make one environment; options are upstream's, e.g. ``terminate_at_goal=False``."""
    load_triton()  # its import may load Mesa
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no screen
        import ogbench  # noqa: F401 - registers its ids

    words = [word for word in id.split("-") if word not in DATASETS]
    given = options | ({"use_oracle_rep": True} if "oraclerep" in words else {})
    if "visual" in words:
        offer_backend()
    name = "-".join(word for word in words if word != "oraclerep")
    with GlobalStream().lent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that upstream's bounds are float64
        env, limit = upstream(name, given)
        return OGBench(env, id, options, limit)
