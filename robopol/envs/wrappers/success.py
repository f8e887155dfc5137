"""What counts as success is said from outside."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig


class SuccessConfig(WrapperConfig):
    """Defines success by the reward or the return, where the world knows none or another; may end episodes on it.

    Attributes:
        reward: An episode has succeeded once the reward of a step was at least this much.
        total: An episode has succeeded once its return was at least this much.
        terminate: Whether success ends the episode. With neither threshold it is the world's own success.
    """

    kind: Literal["success"] = "success"
    reward: float | None = None
    total: float | None = None
    terminate: bool = False

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.reward is not None and self.total is not None:
            raise ValueError("success is defined by a reward or by a total, not by both")
        return self

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        return Success(env, self)


class Success(VectorWrapper):
    """See `SuccessConfig`; remembers [return so far, succeeded, ended] of each episode."""

    def __init__(self, env: VectorEnv, config: SuccessConfig) -> None:
        """See `VectorWrapper`."""
        super().__init__(env, config, memory=3)
        self._config = config

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        observation = self.env.reset(slots, seeds)
        self.memory[list(slots)] = 0.0
        return observation

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        self.check_running(slots, (self.memory[:, 2] == 0).cpu().numpy())
        result, rows = self.env.step(slots, actions), list(slots)
        self.memory[rows, 0] += result.reward.double()
        if self._config.reward is not None:
            won = result.reward >= self._config.reward
        elif self._config.total is not None:
            won = self.memory[rows, 0] >= self._config.total
        else:
            won = result.success
        success = won | (self.memory[rows, 1] > 0)
        terminated = result.terminated | success if self._config.terminate else result.terminated
        self.memory[rows, 1], self.memory[rows, 2] = success.double(), terminated.double()
        return result._replace(success=success, terminated=terminated, truncated=result.truncated & ~terminated)
