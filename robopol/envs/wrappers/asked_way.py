"""One of a task's ways is asked for, and only that one counts."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig
from robopol.errors import ConfigError


class AskedWayConfig(WrapperConfig):
    """Draws at every reset which of the task's ways is asked for, shows it, and rewards it alone.

    What is the better thing to do then depends on what is seen, and nothing else about it tells. The observation that
    is added has a 1 for the way that is asked for and 0 for the others; the reward is 1 where the task is done in that
    way, else 0. An episode that is done in another way ends without success.

    Attributes:
        key: What the observation is called.
    """

    kind: Literal["asked_way"] = "asked_way"
    key: str = "asked"

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        if self.key in env.spec.obs_shapes:
            raise ConfigError(f"wrapper {self.kind}: {env.spec.id} has an observation '{self.key}' of its own")
        if not env.spec.way_names:
            raise ConfigError(f"wrapper {self.kind}: {env.spec.id} has no ways to choose from")
        return AskedWay(env, self)


class AskedWay(VectorWrapper):
    """See `AskedWayConfig`; remembers which way is asked for in each episode, and whether it was rewarded."""

    def __init__(self, env: VectorEnv, config: AskedWayConfig) -> None:
        """Add the observation; see `AskedWayConfig.build`."""
        self._ways = len(env.spec.way_names)
        super().__init__(
            env,
            config,
            memory=2,
            obs_shapes=env.spec.obs_shapes | {config.key: (self._ways,)},
            obs_dtypes=env.spec.obs_dtypes | {config.key: "float32"},
        )
        self._key = config.key

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        observation = self.env.reset(slots, seeds)
        # a stream of its own: worlds and experts draw from the same seed
        drawn = [int(np.random.default_rng([seed, 2]).integers(self._ways)) for seed in seeds]
        self.memory[list(slots)] = torch.tensor([[way, 0.0] for way in drawn], dtype=torch.float64).to(self.device)
        return self._show(observation, slots)

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        result, rows = self.env.step(slots, actions), list(slots)
        success = result.success & (result.way == self.memory[rows, 0])
        reward = (success & (self.memory[rows, 1] == 0)).float()
        self.memory[rows, 1] = success.double()
        return result._replace(obs=self._show(result.obs, slots), reward=reward, success=success)

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        return self._show(super().restore_state(slot, state), [slot])

    def _show(self, observation: Observation, slots: Sequence[int]) -> Observation:
        asked = torch.nn.functional.one_hot(self.memory[list(slots), 0].long(), self._ways)
        return observation | {self._key: asked.float()}
