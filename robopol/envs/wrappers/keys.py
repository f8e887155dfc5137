"""Which observations there are, and what they are called."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig, known, vectors
from robopol.errors import ConfigError


class ConcatenateConfig(WrapperConfig):
    """Joins vectors to one, e.g. the state and the goal to a state that holds the goal.

    Attributes:
        keys: Which, in the order in which they are joined.
        into: What the joint vector is called.
    """

    kind: Literal["concatenate"] = "concatenate"
    keys: tuple[str, ...] = Field(("state", "goal"), min_length=1)
    into: str = "state"

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        vectors(env.spec, self.kind, self.keys)
        left = [key for key in env.spec.obs_shapes if key not in self.keys]
        if self.into in left or len(set(self.keys)) < len(self.keys):
            raise ConfigError(f"wrapper {self.kind}: {list(self.keys)} into '{self.into}' names a key twice")
        return Rekeyed(env, self, {key: (key,) for key in left} | {self.into: self.keys})


class SelectConfig(WrapperConfig):
    """Leaves out observations, e.g. the goal.

    Attributes:
        keys: Those that stay.
    """

    kind: Literal["select"] = "select"
    keys: tuple[str, ...] = Field(("state",), min_length=1)

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        known(env.spec, self.kind, self.keys)
        return Rekeyed(env, self, {key: (key,) for key in self.keys})


class Rekeyed(VectorWrapper):
    """Observations made of those of the world."""

    def __init__(self, env: VectorEnv, config: WrapperConfig, parts: dict[str, tuple[str, ...]]) -> None:
        """See `VectorWrapper`; ``parts`` is key -> the world's keys that it is joined of."""
        spec = env.spec
        shapes = {
            key: (sum(spec.obs_shapes[old][0] for old in olds),) if len(olds) > 1 else spec.obs_shapes[olds[0]]
            for key, olds in parts.items()
        }
        names = spec.state_names if parts.get("state") == ("state",) else ()
        super().__init__(
            env,
            config,
            obs_shapes=shapes,
            obs_dtypes={key: spec.obs_dtypes[olds[0]] for key, olds in parts.items()},
            state_names=names,
        )
        self._parts = parts

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        return self._join(self.env.reset(slots, seeds))

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        result = self.env.step(slots, actions)
        return result._replace(obs=self._join(result.obs))

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        return self._join(super().restore_state(slot, state))

    def _join(self, observation: Observation) -> Observation:
        return {
            key: torch.cat([observation[old] for old in olds], dim=-1) if len(olds) > 1 else observation[olds[0]]
            for key, olds in self._parts.items()
        }
