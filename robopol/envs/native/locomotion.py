"""Gymnasium's standard tasks, stepped by native threads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import PCG64, Generator
from numpy.typing import NDArray
from torch import Tensor

from robopol.envs.engine import mujoco
from robopol.envs.foreign.world import World
from robopol.envs.locomotion import find_task
from robopol.envs.native.worlds import Worlds, copy_data
from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.errors import EnvError


class NativeLocomotion(VectorEnv):
    """A `VectorEnv` of one of gymnasium's tasks; all that it returns equals what gymnasium's own environments say.

    One of these is kept: it lends its model, draws pictures, and saves and restores states.
    """

    def __init__(self, world: World, num_envs: int, threads: int | None = None) -> None:
        """Make the worlds and start the threads.

        Args:
            world: One environment of the task.
            num_envs: How many worlds.
            threads: See `Worlds`.

        Raises:
            EnvError: If the task has no definition in `robopol.envs.locomotion`, or there are no native threads here.
        """
        definition = find_task(world.id, world.options)
        if definition is None:
            raise EnvError(f"'{world.id}' with {world.options} has no definition that many worlds could share")
        self.spec = world.env_spec
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        self._world = world
        world.reset(seed=0)  # it is never stepped, but draws only once it was reset
        self._task = definition(world, world.options)
        self._model = self._task.model
        self._shown: Any = world.unwrapped.data  # type: ignore[attr-defined]
        self._data = [mujoco.MjData(self._model) for _ in range(num_envs)]
        self._worlds = Worlds(
            [(self._model, data) for data in self._data],
            [self._task.frame_skip],
            definition.fields,
            "mj_rnePostConstraint" if "cfrc_ext" in definition.fields else None,
            threads,
            ("qpos", "qvel"),
        )
        self._nq = self._model.nq
        self._rows = np.zeros_like(self._worlds.rows)  # what every world shows now
        # the common case, all of them: views that are made once
        self._shown_before, self._shown_now = map(self._worlds.fields, (self._rows, self._worlds.rows))
        self._limit = self.spec.max_episode_steps or np.inf
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._running = np.zeros(num_envs, dtype=bool)

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        slots = self.check_slots(slots)
        for start, seed in zip(self._worlds.start, self.check_seeds(slots, seeds), strict=False):
            start[: self._nq], start[self._nq :] = self._task.start(Generator(PCG64(seed)))  # as gymnasium draws
        rows = self._worlds.restart(slots)
        self._rows[slots] = rows
        self._steps[slots] = 0
        self._running[slots] = True
        return self._observation(self._worlds.fields(rows))

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        slots = self.check_slots(slots)
        array = self.check_actions(slots, actions)
        self.check_running(slots, self._running)
        self._worlds.control[: len(slots), 0] = array
        rows = self._worlds.advance(slots)
        some: Any
        if slots == self._everyone:
            some, before, now = ..., self._shown_before, self._shown_now
        else:
            some, before, now = slots, self._worlds.fields(self._rows[slots]), self._worlds.fields(rows)
        reward, terminated = self._task.judge(before, now, array)
        obs = self._observation(now)
        self._rows[some] = rows
        steps = self._steps[some] + 1
        late = steps >= self._limit
        self._steps[some], self._running[some] = steps, ~(terminated | late)
        return StepResult(
            obs,
            torch.from_numpy(reward.astype(np.float32)),
            torch.from_numpy(terminated),
            torch.from_numpy(late & ~terminated),
            torch.from_numpy(np.zeros(len(slots), dtype=bool)),
            torch.from_numpy(np.full(len(slots), -1)),
        )

    def render(self, slot: int) -> NDArray[np.uint8]:
        """See `VectorEnv.render`."""
        self._show(slot)
        return self._world.render()

    def close(self) -> None:
        """See `VectorEnv.close`."""
        self._worlds.close()
        self._world.close()
        self._running[:] = False

    def save_state(self, slot: int) -> Tensor:
        """See `VectorEnv.save_state`; the vector is that of gymnasium's environment stepped alone."""
        return torch.from_numpy(self._state(slot))

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state` and `robopol.envs.foreign.world.World.restore_state`."""
        self.check_running(self.check_slots([slot]), self._running)
        whole = self._state(slot)
        self._world.restore_state(state.numpy())
        copy_data(self._model, self._shown, self._data[slot])
        self._rows[slot] = self._worlds.read(slot)
        if len(state) == len(whole):
            self._steps[slot] = state[-2]
        return self._observation(self._worlds.fields(self._rows[[slot]]))

    def _show(self, slot: int) -> None:
        """Put the environment that is kept where a world is."""
        copy_data(self._model, self._data[self.check_slots([slot])[0]], self._shown)

    def _state(self, slot: int) -> NDArray[np.float64]:
        self._show(slot)
        state = self._world.save_state()
        if state is None:
            raise EnvError(f"{self.spec.id} cannot save its state")
        state[-2:] = self._steps[slot], 0.0  # steps so far, succeeded
        return state

    def _observation(self, now: Mapping[str, NDArray[np.float64]]) -> Observation:
        return {"state": torch.from_numpy(self._task.observation(now).astype(np.float32))}
