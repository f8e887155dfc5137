"""The tasks of the arm, their physics stepped by native threads."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.native.worlds import Worlds
from robopol.envs.serial import SerialVectorEnv
from robopol.envs.task import Task


class NativeTasks(SerialVectorEnv):
    """A `VectorEnv` of one of robopol's tasks; control, verdict and observation stay those of each single task."""

    def __init__(self, tasks: Sequence[Task], threads: int | None = None) -> None:
        """Start the threads.

        Args:
            tasks: Equal tasks.
            threads: See `Worlds`.
        """
        super().__init__(tasks, tasks[0].env_spec)
        self._tasks = list(tasks)
        self._worlds = Worlds(
            [(task.model, task.data) for task in tasks],
            tasks[0].physics_steps,
            finish="mj_kinematics",
            threads=threads,
        )

    def close(self) -> None:
        """See `VectorEnv.close`."""
        self._worlds.close()
        super().close()

    def _execute(self, slots: Sequence[int], actions: NDArray[np.float32]) -> list[tuple[Any, ...]]:
        for i, (slot, action) in enumerate(zip(slots, actions, strict=True)):
            self._worlds.control[i] = self._tasks[slot].aim(action)
        self._worlds.advance(slots)
        return [self._tasks[slot].conclude() for slot in slots]
