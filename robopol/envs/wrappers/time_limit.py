"""Episodes are cut after a number of steps."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig


class TimeLimitConfig(WrapperConfig):
    """Truncates episodes earlier than the world does.

    Attributes:
        steps: After how many steps.
    """

    kind: Literal["time_limit"] = "time_limit"
    steps: int = Field(1000, ge=1)

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        return TimeLimit(env, self)


class TimeLimit(VectorWrapper):
    """See `TimeLimitConfig`; remembers the steps of each episode."""

    def __init__(self, env: VectorEnv, config: TimeLimitConfig) -> None:
        """See `VectorWrapper`."""
        self._steps = config.steps
        limit = min(config.steps, env.spec.max_episode_steps or config.steps)
        super().__init__(env, config, memory=1, max_episode_steps=limit)

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        observation = self.env.reset(slots, seeds)
        self.memory[list(slots)] = 0.0
        return observation

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        taken = self.memory[:, 0]
        self.check_running(slots, (taken < self._steps).cpu().numpy())
        result = self.env.step(slots, actions)
        taken[list(slots)] += 1
        late = (taken[list(slots)] >= self._steps) & ~result.terminated
        return result._replace(truncated=result.truncated | late)
