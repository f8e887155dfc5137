"""The last few observations are observed together."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig, known


class FrameStackConfig(WrapperConfig):
    """Puts the last few observations one after the other: along the last axis, which is that of an image's channels.

    A first observation, and one of a restored state, is repeated.

    Attributes:
        frames: How many, the newest last.
        keys: Which observations; None for all.
    """

    kind: Literal["frame_stack"] = "frame_stack"
    frames: int = Field(2, ge=2)
    keys: tuple[str, ...] | None = None

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        return FrameStack(env, self)


class FrameStack(VectorWrapper):
    """See `FrameStackConfig`."""

    def __init__(self, env: VectorEnv, config: FrameStackConfig) -> None:
        """See `VectorWrapper`."""
        spec, frames = env.spec, config.frames
        self._keys = tuple(spec.obs_shapes) if config.keys is None else config.keys
        known(spec, config.kind, self._keys)
        shapes = {
            key: (*shape[:-1], frames * shape[-1]) if key in self._keys else shape
            for key, shape in spec.obs_shapes.items()
        }
        names = spec.state_names
        if names and "state" in self._keys:
            names = tuple(f"{n}, {ago} ago" if ago else n for ago in range(frames - 1, -1, -1) for n in names)
        super().__init__(env, config, obs_shapes=shapes, state_names=names)
        self._past = {
            key: torch.zeros(env.num_envs, *shapes[key], dtype=getattr(torch, spec.obs_dtypes[key]), device=env.device)
            for key in self._keys
        }
        self._frames = frames

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        return self._fill(slots, self.env.reset(slots, seeds))

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        result = self.env.step(slots, actions)
        stacked = dict(result.obs)
        for key, past in self._past.items():
            newest = result.obs[key]
            stacked[key] = torch.cat([past[list(slots)][..., newest.shape[-1] :], newest], dim=-1)
            past[list(slots)] = stacked[key]
        return result._replace(obs=stacked)

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        return self._fill([slot], super().restore_state(slot, state))

    def _fill(self, slots: Sequence[int], observation: Observation) -> Observation:
        stacked = dict(observation)
        for key, past in self._past.items():
            stacked[key] = torch.cat([observation[key]] * self._frames, dim=-1)
            past[list(slots)] = stacked[key]
        return stacked
