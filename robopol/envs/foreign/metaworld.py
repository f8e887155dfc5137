"""Meta-World's fifty tasks of a Sawyer arm (Yu et al., CoRL 2019): ``metaworld/<task>-v3``, one task at a time.

The state is upstream's: this frame, the last one, and the goal (39 numbers). Upstream's benchmarks draw fifty goals in
advance and choose among them; here every episode draws its own from its seed. Nothing terminates; an episode has
succeeded if ``info["success"]`` was set once. After 500 steps it is truncated.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.foreign.world import World
from robopol.errors import EnvError
from robopol.registry import nearest

LIMIT = 500
"""Steps after which upstream refuses to go on."""


class MetaWorld(World):
    """One task."""

    packages = ("metaworld",)

    def begin(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        """Seed by upstream's own way; its ``reset`` ignores the seed."""
        if seed is not None:
            self.unwrapped.seed(seed)  # type: ignore[attr-defined]
        observation, info = self.env.reset()
        return observation, info

    _kept = ("_prev_obs", "_target_pos", "obj_init_pos", "init_tcp", "init_left_pad", "init_right_pad")
    """Arrays of the environment: the last frame, and what a reset fixes."""

    def memory(self) -> list[NDArray[Any]]:
        """The last frame, goals and places; a few tasks keep more for their reward: reset them with the same seed."""
        inner: Any = self.unwrapped
        for name in self._kept:
            if getattr(inner, name) is not None:  # a copy: some are constants of the class
                setattr(inner, name, np.array(getattr(inner, name), dtype=np.float64))
        kept = [getattr(inner, name) for name in self._kept if getattr(inner, name) is not None]
        return [*kept, inner.model.body_pos, inner.model.site_pos]

    def look(self) -> Any:
        """Observe without passing to the next frame."""
        inner: Any = self.unwrapped
        inner.curr_path_length = int(self._episode[0])
        last = inner._prev_obs.copy()
        observation = inner._get_obs()
        inner._prev_obs = last
        return observation

    @property
    def action_names(self) -> tuple[str, ...]:
        """Differences of the gripper's position in units of 1 cm, and the force of the fingers."""
        return ("x [1 cm]", "y [1 cm]", "z [1 cm]", "gripper")


def make(id: str, options: dict[str, Any]) -> World:
    """Make one task.

    Args:
        id: ``metaworld/<task>``.
        options: Upstream's (``camera_name``, ``width``, ``height``, ``reward_function_version``), and
            ``partially_observable`` (hides the goal, as the meta-learning benchmarks do; False), ``max_episode_steps``
            (at most 500).
    """
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    name = id.removeprefix("metaworld/")
    if name not in ALL_V3_ENVIRONMENTS:
        raise EnvError(f"Meta-World has no task '{name}'{nearest(name, ALL_V3_ENVIRONMENTS)}")
    given = {"render_mode": "rgb_array", **options}
    limit, hidden = given.pop("max_episode_steps", LIMIT), given.pop("partially_observable", False)
    if not isinstance(limit, int) or not 1 <= limit <= LIMIT:
        raise EnvError(f"'{id}': max_episode_steps must be 1 to {LIMIT}, got {limit!r}")
    try:
        env = ALL_V3_ENVIRONMENTS[name](**given)
    except TypeError as error:
        raise EnvError(f"Meta-World cannot make '{name}' with {options}: {error}") from error
    # what upstream's set_task does for a goal drawn in advance
    env._partially_observable = bool(hidden)
    env.__dict__.pop("sawyer_observation_space", None)  # cached for the other observability
    env.observation_space = env.sawyer_observation_space
    env._set_task_called, env._freeze_rand_vec, env.seeded_rand_vec = True, False, True
    env.seed(0)
    env._prev_obs = np.array(env._prev_obs)
    return MetaWorld(env, id, options, limit)
