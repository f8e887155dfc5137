"""The base of the wrappers: it forwards everything."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.config import Config
from robopol.envs.spec import EnvSpec
from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.errors import ConfigError
from robopol.registry import nearest


class WrapperConfig(Config):
    """What all wrappers are told; a kind derives from it."""

    @abstractmethod
    def build(self, env: VectorEnv) -> VectorEnv:
        """Wrap a batch of worlds."""


class VectorWrapper(VectorEnv):
    """A batch of worlds around another; a wrapper overrides what it changes.

    What a wrapper remembers of the running episodes is `memory`, a row per slot: it is saved and restored with the
    state of the world.

    Attributes:
        env: What is wrapped.
        memory: (num_envs, M) float64.
    """

    def __init__(self, env: VectorEnv, config: WrapperConfig, memory: int = 0, **changed: Any) -> None:
        """Wrap.

        Args:
            env: What is wrapped.
            config: What by, for the record.
            memory: M.
            **changed: Fields of the spec that become others.
        """
        self.env = env
        self.num_envs, self.device, self.envs = env.num_envs, env.device, env.envs
        self.spec = replace(env.spec, wrappers=(*env.spec.wrappers, config.tree()), **changed)
        self.memory = torch.zeros(env.num_envs, memory, dtype=torch.float64, device=env.device)

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        return self.env.reset(slots, seeds)

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        return self.env.step(slots, actions)

    def render(self, slot: int) -> NDArray[np.uint8]:
        """See `VectorEnv.render`."""
        return self.env.render(slot)

    def close(self) -> None:
        """See `VectorEnv.close`."""
        self.env.close()

    @property
    def model(self) -> str | None:
        """See `VectorEnv.model`."""
        return self.env.model

    def save_state(self, slot: int) -> Tensor | None:
        """See `VectorEnv.save_state`; ends with what the wrapper remembers."""
        inner = self.env.save_state(slot)
        return None if inner is None else torch.cat([inner, self.memory[slot].to(inner.device)])

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        size = len(state) - self.memory.shape[1]
        observation = self.env.restore_state(slot, state[: max(size, 0)])
        self.memory[slot] = state[size:].to(self.device)
        return observation

    @property
    def loads_models(self) -> bool:
        """See `VectorEnv.loads_models`."""
        return self.env.loads_models

    def load_model(self, slot: int, model: str) -> None:
        """See `VectorEnv.load_model`."""
        self.env.load_model(slot, model)


def known(env: EnvSpec, kind: str, keys: Sequence[str]) -> None:
    """Check that a world has some observation keys.

    Raises:
        ConfigError: Names the first that it lacks.
    """
    for key in keys:
        if key not in env.obs_shapes:
            raise ConfigError(
                f"wrapper {kind}: {env.id} has no observation '{key}'{nearest(key, env.obs_shapes)}; it has "
                f"{', '.join(env.obs_shapes)}"
            )


def vectors(env: EnvSpec, kind: str, keys: Sequence[str]) -> None:
    """Check that a world has some observation keys and that they are vectors.

    Raises:
        ConfigError: Names the first that is not.
    """
    known(env, kind, keys)
    for key in keys:
        if env.obs_dtypes[key] != "float32" or len(env.obs_shapes[key]) != 1:
            raise ConfigError(f"wrapper {kind}: observation '{key}' of {env.id} is {env.obs_shapes[key]}, not a vector")
