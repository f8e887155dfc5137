"""Another reward in the place of the world's."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from robopol.envs.vector import StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig
from robopol.reward import Reward


class RewardConfig(Reward, WrapperConfig):
    """Changes the reward of every step; see `robopol.reward.Reward`.

    Evaluations in the wrapped world tell the changed one. A run's own ``reward`` changes what is learned from, data
    included, and leaves evaluations alone.
    """

    kind: Literal["reward"] = "reward"

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        return Rewarded(env, self)


class Rewarded(VectorWrapper):
    """See `RewardConfig`."""

    def __init__(self, env: VectorEnv, config: RewardConfig) -> None:
        """See `VectorWrapper`."""
        super().__init__(env, config)
        self._config = config

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        result = self.env.step(slots, actions)
        won = result.success & (result.terminated | result.truncated)
        return result._replace(reward=self._config.of_steps(result.reward, won))


def with_reward(env: VectorEnv, reward: Reward) -> VectorEnv:
    """Wrap a world in a reward, unless that is its own."""
    return env if reward == Reward() else RewardConfig(**dict(reward)).build(env)
