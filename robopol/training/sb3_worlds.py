"""Worlds as Stable-Baselines3 wants them."""

from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from robopol.envs import VectorEnv
from robopol.errors import ConfigError
from robopol.training.collector import FIRST_SEED
from robopol.training.seeding import seed_of


class Worlds(VecEnv):
    """A `VectorEnv` as Stable-Baselines3 wants it: the observation "state", new episodes by itself."""

    def __init__(self, env: VectorEnv, seed: int) -> None:
        """Wrap worlds.

        Args:
            env: The worlds; nobody else steps them.
            seed: Of the run.

        Raises:
            ConfigError: If there is no "state", or an action has no bounds.
        """
        spec = env.spec
        low, high = (np.asarray(side, np.float32) for side in (spec.action_low, spec.action_high))
        if list(spec.obs_shapes) != ["state"] or len(spec.obs_shapes["state"]) != 1:
            raise ConfigError(
                f"agents of Stable-Baselines3 are trained on one vector, 'state'; {spec.id} has "
                f"{', '.join(spec.obs_shapes)}"
            )
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ConfigError(f"agents of Stable-Baselines3 want bounds for every action, and {spec.id} has none")
        self.env, self._seed, self._episodes, self._slots = env, seed, 0, list(range(env.num_envs))
        self._totals, self._lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
        self._actions: NDArray[np.float32] = np.zeros((env.num_envs, len(low)), np.float32)
        super().__init__(env.num_envs, Box(-np.inf, np.inf, spec.obs_shapes["state"], np.float32), Box(low, high))

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode everywhere, (N, D)."""
        return self._begin(self._slots)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take up actions (N, A)."""
        self._actions = np.asarray(actions, np.float32)

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Take the step; where an episode ended, the next one has begun."""
        result = self.env.step(self._slots, torch.from_numpy(self._actions))
        obs, reward = result.obs["state"].cpu().numpy().copy(), result.reward.cpu().numpy()
        terminated, truncated = result.terminated.cpu().numpy(), result.truncated.cpu().numpy()
        over = terminated | truncated
        self._totals += reward
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in self._slots]
        for slot in np.flatnonzero(over):
            infos[slot] = {
                "terminal_observation": obs[slot].copy(),
                "TimeLimit.truncated": bool(truncated[slot] and not terminated[slot]),
                "episode": {"r": float(self._totals[slot]), "l": int(self._lengths[slot]), "t": 0.0},
                "is_success": bool(result.success[slot]),
            }
        ended = np.flatnonzero(over).tolist()
        if ended:
            obs[ended] = self._begin(ended)
        return obs, reward, over, infos

    def _begin(self, slots: list[int]) -> NDArray[np.float32]:
        seeds = [
            FIRST_SEED + seed_of(self._seed, "episode", self._episodes + k) % FIRST_SEED for k in range(len(slots))
        ]
        self._episodes += len(slots)
        self._totals[slots], self._lengths[slots] = 0.0, 0
        found: NDArray[np.float32] = self.env.reset(slots, seeds)["state"].cpu().numpy().copy()
        return found

    def close(self) -> None:
        """Leave the worlds to whoever made them."""

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Keep the seeds of the run."""
        return [None for _ in self._slots]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Know nothing but that nothing is shown."""
        if attr_name == "render_mode":
            return [None for _ in self._slots]
        raise AttributeError(attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> NoReturn:
        """Refuse."""
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> NoReturn:
        """Refuse."""
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Say that nothing is."""
        return [False for _ in self._slots]
