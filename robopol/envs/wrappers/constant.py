"""An observation that the world does not have and that never changes, e.g. a wish."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig
from robopol.errors import ConfigError


class ConstantConfig(WrapperConfig):
    """Adds an observation that is always the same.

    A policy that learned from labelled demonstrations (`robopol data label`) is told so to act as well as it can.

    Attributes:
        key: What it is called.
        value: Its entries.
    """

    kind: Literal["constant"] = "constant"
    key: str = "optimal"
    value: tuple[float, ...] = Field((1.0,), min_length=1)

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        if self.key in env.spec.obs_shapes:
            raise ConfigError(f"wrapper {self.kind}: {env.spec.id} has an observation '{self.key}' of its own")
        return Constant(env, self)


class Constant(VectorWrapper):
    """See `ConstantConfig`."""

    def __init__(self, env: VectorEnv, config: ConstantConfig) -> None:
        """Add the observation; see `ConstantConfig.build`."""
        shape = (len(config.value),)
        super().__init__(
            env,
            config,
            obs_shapes=env.spec.obs_shapes | {config.key: shape},
            obs_dtypes=env.spec.obs_dtypes | {config.key: "float32"},
        )
        self._key, self._value = config.key, torch.tensor(config.value, device=env.device)

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        return self._add(self.env.reset(slots, seeds), len(slots))

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        result = self.env.step(slots, actions)
        return result._replace(obs=self._add(result.obs, len(slots)))

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        return self._add(super().restore_state(slot, state), 1)

    def _add(self, observation: Observation, rows: int) -> Observation:
        return observation | {self._key: self._value.expand(rows, -1)}
