"""Single gymnasium environments, stepped one after the other."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.envs.spec import EnvSpec
from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.errors import EnvError


class SerialVectorEnv(VectorEnv):
    """A `VectorEnv` over equal gymnasium environments with dict observations."""

    def __init__(self, envs: Sequence[gymnasium.Env[Any, Any]], spec: EnvSpec) -> None:
        """Wrap environments.

        Args:
            envs: Equal environments with dict observations, as ``spec`` says.
            spec: Their contract.
        """
        self.envs = list(envs)
        self.spec = spec
        self.num_envs = len(self.envs)
        self.device = torch.device("cpu")
        self._running = np.zeros(self.num_envs, dtype=bool)

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        slots = self.check_slots(slots)
        observations = []
        for slot, seed in zip(slots, self.check_seeds(slots, seeds), strict=True):
            observations.append(self.envs[slot].reset(seed=seed)[0])
            self._running[slot] = True
        return self._stack(observations)

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        slots = self.check_slots(slots)
        array = self.check_actions(slots, actions)
        self.check_running(slots, self._running)
        observations, rewards, flags, ways = [], [], [], []
        results = self._execute(slots, array)
        for slot, (observation, reward, terminated, truncated, info) in zip(slots, results, strict=True):
            observations.append(observation)
            rewards.append(float(reward))
            success = bool(info.get("success", info.get("is_success", False)))
            flags.append((bool(terminated), bool(truncated), success))
            ways.append(int(info.get("way", -1)))
            self._running[slot] = not (terminated or truncated)
        terminated_, truncated_, success_ = torch.tensor(flags, dtype=torch.bool).reshape(-1, 3).unbind(1)
        return StepResult(
            self._stack(observations),
            torch.tensor(rewards, dtype=torch.float32),
            terminated_,
            truncated_,
            success_,
            torch.tensor(ways, dtype=torch.int64),
        )

    def render(self, slot: int) -> NDArray[np.uint8]:
        """See `VectorEnv.render`."""
        picture = self.envs[self.check_slots([slot])[0]].render()
        if not isinstance(picture, np.ndarray):
            raise EnvError(f"{self.spec.id} gave no picture; pass render_mode='rgb_array' to make_env")
        return picture

    def close(self) -> None:
        """See `VectorEnv.close`."""
        for env in self.envs:
            env.close()
        self._running[:] = False

    @property
    def model(self) -> str | None:
        """See `VectorEnv.model`."""
        return getattr(self.envs[0], "mjcf", None)

    def save_state(self, slot: int) -> Tensor | None:
        """See `VectorEnv.save_state`."""
        state = getattr(self.envs[slot], "save_state", _nothing)()
        return None if state is None else torch.from_numpy(state)

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        restore = getattr(self.envs[slot], "restore_state", None)
        if restore is None:
            return super().restore_state(slot, state)
        self.check_running([slot], self._running)
        return self._stack([restore(state.numpy())])

    @property
    def loads_models(self) -> bool:
        """See `VectorEnv.loads_models`."""
        return hasattr(self.envs[0], "load_model")

    def load_model(self, slot: int, model: str) -> None:
        """See `VectorEnv.load_model`."""
        if not self.loads_models:
            super().load_model(slot, model)
        self.check_running([slot], self._running)
        self.envs[slot].load_model(model)

    def _execute(self, slots: Sequence[int], actions: NDArray[np.float32]) -> list[tuple[Any, ...]]:
        """Step some of the environments; return for each what its ``step`` returns."""
        return [self.envs[slot].step(action) for slot, action in zip(slots, actions, strict=True)]

    def _stack(self, observations: list[dict[str, NDArray[Any]]]) -> Observation:
        return {
            key: torch.from_numpy(np.stack([observation[key] for observation in observations]))
            if observations
            else torch.empty((0, *shape), dtype=getattr(torch, self.spec.obs_dtypes[key]))
            for key, shape in self.spec.obs_shapes.items()
        }


def _nothing() -> None:
    """Stand in for the state of an environment that cannot tell it."""
