"""Every action is executed several times."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.envs.vector import StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig


class ActionRepeatConfig(WrapperConfig):
    """Executes every action several times; the rewards are summed.

    Attributes:
        times: How many times, until the episode ends.
    """

    kind: Literal["action_repeat"] = "action_repeat"
    times: int = Field(2, ge=1)

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        return ActionRepeat(env, self)


class ActionRepeat(VectorWrapper):
    """See `ActionRepeatConfig`."""

    def __init__(self, env: VectorEnv, config: ActionRepeatConfig) -> None:
        """See `VectorWrapper`."""
        self._times = config.times
        steps = -(-env.spec.max_episode_steps // self._times)
        super().__init__(env, config, control_hz=env.spec.control_hz / self._times, max_episode_steps=steps)

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        listed = list(slots)
        result = self.env.step(listed, actions)
        total = StepResult({key: value.clone() for key, value in result.obs.items()}, *(x.clone() for x in result[1:]))
        for _ in range(self._times - 1):
            going = torch.nonzero(~(total.terminated | total.truncated))[:, 0]
            if not len(going):
                break
            result = self.env.step([listed[row] for row in going.tolist()], actions[going])
            for key, value in result.obs.items():
                total.obs[key][going] = value
            total.reward[going] += result.reward
            for ours, theirs in zip(total[2:], result[2:], strict=True):
                ours[going] = theirs
        return total
