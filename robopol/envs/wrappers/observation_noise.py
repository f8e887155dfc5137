"""Observations are disturbed."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig, vectors

_PURPOSE = 0x4E4F4953  # keeps its draws apart from others of the same seed


class ObservationNoiseConfig(WrapperConfig):
    """Adds Gaussian noise to vectors; an episode's noise is drawn from its seed.

    Attributes:
        std: Observation key -> standard deviation, in the units of that observation.
    """

    kind: Literal["observation_noise"] = "observation_noise"
    std: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        return ObservationNoise(env, self)


class ObservationNoise(VectorWrapper):
    """See `ObservationNoiseConfig`; a restored episode goes on with fresh noise."""

    def __init__(self, env: VectorEnv, config: ObservationNoiseConfig) -> None:
        """See `VectorWrapper`."""
        vectors(env.spec, config.kind, tuple(config.std))
        super().__init__(env, config)
        self._std = dict(sorted(config.std.items()))
        # the depth tells two such wrappers around one world apart
        self._purpose = [_PURPOSE, len(env.spec.wrappers)]
        self._streams: dict[int, np.random.Generator] = {}

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        observation = self.env.reset(slots, seeds)
        for slot, seed in zip(slots, seeds, strict=True):
            self._streams[int(slot)] = np.random.default_rng([int(seed), *self._purpose])
        return self._disturb(slots, observation)

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        result = self.env.step(slots, actions)
        return result._replace(obs=self._disturb(slots, result.obs))

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        return self._disturb([slot], super().restore_state(slot, state))

    def _disturb(self, slots: Sequence[int], observation: Observation) -> Observation:
        noisy = dict(observation)
        for key, std in self._std.items():
            size = self.spec.obs_shapes[key]
            noise = [self._streams[int(slot)].normal(0.0, std, size) for slot in slots]
            drawn = np.array(noise, dtype=np.float32).reshape(len(noise), *size)
            noisy[key] = observation[key] + torch.from_numpy(drawn).to(observation[key].device)
        return noisy
