"""Gymnasium's standard tasks in many worlds at once."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.envs.foreign.world import World
from robopol.envs.locomotion import find_task
from robopol.envs.warp.physics import Physics
from robopol.envs.warp.vector import Played, WarpVectorEnv
from robopol.errors import EnvError


class WarpLocomotion(WarpVectorEnv):
    """A `VectorEnv` of one of gymnasium's tasks, as `robopol.envs.locomotion` defines it."""

    def __init__(self, world: World, num_envs: int, device: torch.device) -> None:
        """Copy the task to the device.

        Args:
            world: One environment of the task.
            num_envs: How many worlds.
            device: Where they are simulated.

        Raises:
            MissingExtraError: If MuJoCo Warp is not installed.
            EnvError: If it cannot simulate there, or the task has no definition in `robopol.envs.locomotion`.
        """
        definition = find_task(world.id, world.options)
        if definition is None:
            raise EnvError(f"'{world.id}' with {world.options} has no definition that many worlds could share")
        self._task = definition(
            world, world.options, lambda numbers: torch.as_tensor(numbers, dtype=torch.float64, device=device)
        )
        self._data: Any = world.unwrapped.data  # type: ignore[attr-defined]
        finish = ("rne_postconstraint",) if "cfrc_ext" in definition.fields else ()
        super().__init__(world, Physics(self._task.model, num_envs, device, [self._task.frame_skip], finish), num_envs)
        self._limit = world.limit or np.inf
        sizes = [getattr(self._data, field).size for field in definition.fields]
        episode, *fields = self.record.split([2, *sizes], dim=1)
        self._steps = episode[:, 0]
        self._before = {
            name: field.view(num_envs, *getattr(self._data, name).shape)
            for name, field in zip(definition.fields, fields, strict=True)
        }

    def _extra(self) -> list[NDArray[Any]]:
        """Return the fields that the task reads."""
        return [getattr(self._data, field) for field in self._task.fields]

    def _loaded(self, slots: list[int]) -> None:
        pass

    def _act(self, actions: Tensor) -> None:
        self.physics.advance(actions[None])

    def _judge(self, actions: Tensor, sane: Tensor) -> Played:
        now = {}
        for name, before in self._before.items():
            mask = sane.view(-1, *[1] * (before.ndim - 1))
            now[name] = torch.where(mask, self.physics.field(name).double(), before)
        reward, terminated = self._task.judge(self._before, now, actions)
        self._steps += 1
        state = self._task.observation(now)
        for name, before in self._before.items():
            before.copy_(now[name])
        never = torch.zeros_like(terminated)
        return Played(state, reward, terminated, self._steps >= self._limit, never, never.long() - 1)
