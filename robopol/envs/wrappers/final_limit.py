"""Time-outs taken for ends of the task, as some published code takes them."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from robopol.envs.vector import StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig


class FinalLimitConfig(WrapperConfig):
    """Says of every episode that was cut that it terminated: nothing is bootstrapped there.

    For comparison with published figures only: what is learned of a state then depends on the time that is left, which
    the state does not tell (Pardo et al. 2018).
    """

    kind: Literal["final_limit"] = "final_limit"

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        return FinalLimit(env, self)


class FinalLimit(VectorWrapper):
    """See `FinalLimitConfig`."""

    def __init__(self, env: VectorEnv, config: FinalLimitConfig) -> None:
        """See `VectorWrapper`."""
        super().__init__(env, config)

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        result = self.env.step(slots, actions)
        over = result.terminated | result.truncated
        return result._replace(terminated=over, truncated=torch.zeros_like(over))
