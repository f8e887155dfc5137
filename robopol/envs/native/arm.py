"""The tasks of the arm, their physics stepped by native threads."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.envs.native.worlds import Worlds
from robopol.envs.serial import SerialVectorEnv
from robopol.envs.task import Task
from robopol.envs.vector import StepResult
from robopol.envs.view import FIELDS, View


class NativeTasks(SerialVectorEnv):
    """A `VectorEnv` of one of robopol's tasks: each keeps its control and its noise; all are judged at once."""

    def __init__(self, tasks: Sequence[Task], threads: int | None = None) -> None:
        """Start the threads.

        Args:
            tasks: Equal tasks; what they remember of their episodes lies side by side from now on.
            threads: See `Worlds`.
        """
        super().__init__(tasks, tasks[0].env_spec)
        self._tasks, self._first = list(tasks), tasks[0]
        self._memory, self._episodes = np.zeros((len(tasks), self._first.memory_size)), np.zeros((len(tasks), 3))
        for task, memory, episode in zip(tasks, self._memory, self._episodes, strict=True):
            task.share(memory, episode)
        self._worlds = Worlds(
            [(task.model, task.data) for task in tasks],
            self._first.physics_steps,
            FIELDS,
            finish="mj_kinematics",
            threads=threads,
        )
        self._shown: Mapping[str, NDArray[np.float64]] = {}  # after the last step, of the slots that took it
        self._view = View(self._first.model, lambda field: self._shown[field])

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        slots = self.check_slots(slots)
        array = self.check_actions(slots, actions)
        self.check_running(slots, self._running)
        tasks = [self._tasks[slot] for slot in slots]
        for control, task, action in zip(self._worlds.control, tasks, array, strict=False):
            control[:] = task.aim(action)
        self._shown = self._worlds.fields(self._worlds.advance(slots))
        verdict = self._first.judge(self._view, self._memory[slots])
        outcome = self._first.outcome(verdict, self._episodes[slots])
        self._memory[slots], self._episodes[slots] = verdict.memory, outcome.episode
        self._running[slots] = ~(outcome.success | outcome.truncated)
        states = self._first.state(self._view)
        return StepResult(
            self._stack([task.observed(state) for task, state in zip(tasks, states, strict=True)]),
            torch.from_numpy(outcome.reward.astype(np.float32)),
            torch.from_numpy(outcome.success),
            torch.from_numpy(outcome.truncated),
            torch.from_numpy(outcome.success.copy()),
            torch.from_numpy(outcome.episode[:, 2].astype(np.int64)),
        )

    def close(self) -> None:
        """See `VectorEnv.close`."""
        self._worlds.close()
        super().close()
