"""What ``render`` draws is observed."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig
from robopol.errors import ConfigError


class CameraConfig(WrapperConfig):
    """Observes the picture that the world renders, made smaller by averaging.

    Attributes:
        name: It becomes "images.<name>".
        height: Of the observed picture, pixels.
        width: Of the observed picture, pixels.
    """

    kind: Literal["camera"] = "camera"
    name: str = Field("render", min_length=1)
    height: int = Field(96, ge=1, le=1024)
    width: int = Field(96, ge=1, le=1280)

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        return Camera(env, self)


class Camera(VectorWrapper):
    """See `CameraConfig`."""

    def __init__(self, env: VectorEnv, config: CameraConfig) -> None:
        """See `VectorWrapper`."""
        self._key, self._size = f"images.{config.name}", (config.height, config.width)
        if self._key in env.spec.obs_shapes:
            raise ConfigError(f"wrapper camera: {env.spec.id} has an observation '{self._key}' already; name another")
        shapes = env.spec.obs_shapes | {self._key: (*self._size, 3)}
        super().__init__(env, config, obs_shapes=shapes, obs_dtypes=env.spec.obs_dtypes | {self._key: "uint8"})

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        return self._look(slots, self.env.reset(slots, seeds))

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        result = self.env.step(slots, actions)
        return result._replace(obs=self._look(slots, result.obs))

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        return self._look([slot], super().restore_state(slot, state))

    def _look(self, slots: Sequence[int], observation: Observation) -> Observation:
        pictures = [self._shrink(self.env.render(slot)) for slot in slots]
        empty = torch.empty((0, *self._size, 3), dtype=torch.uint8)
        return observation | {self._key: (torch.stack(pictures) if pictures else empty).to(self.device)}

    def _shrink(self, picture: np.ndarray) -> Tensor:
        frame = torch.from_numpy(np.ascontiguousarray(picture))
        if tuple(frame.shape[:2]) == self._size:
            return frame
        channels = frame.permute(2, 0, 1).float()[None]
        small = torch.nn.functional.interpolate(channels, self._size, mode="area")[0]
        return small.round().to(torch.uint8).permute(1, 2, 0).contiguous()
