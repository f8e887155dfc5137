"""The tasks of the arm in many worlds at once."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.envs.control import CONTROLS
from robopol.envs.domain import MAX_LATENCY
from robopol.envs.gripper import STROKE
from robopol.envs.task import Task
from robopol.envs.view import View
from robopol.envs.warp.kinematics import WarpKinematics
from robopol.envs.warp.noise import normal
from robopol.envs.warp.physics import Physics
from robopol.envs.warp.vector import Played, WarpVectorEnv

_SCALED = {
    "mass": ("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_invweight0"),
    "friction": ("geom_friction",),
}
"""Parameter of the domain -> the fields of the model that follow from it."""


class WarpTasks(WarpVectorEnv):
    """A `VectorEnv` of one of robopol's tasks.

    Commands are computed in float64 and equal those of the single task but for rounding; what is judged and
    observed is defined by the task itself. Observation noise has its size but not the numbers of the single
    task; it follows from the seed and the step alone.
    """

    def __init__(self, task: Task, num_envs: int, device: torch.device) -> None:
        """Copy the task to the device.

        Args:
            task: One task.
            num_envs: How many worlds.
            device: Where they are simulated.

        Raises:
            MissingExtraError: If MuJoCo Warp is not installed.
            EnvError: If it cannot simulate there, or the task observes pictures.
        """
        task.reset(seed=0)  # a fixed scale of mass or friction is in the model from now on
        ranges = {name: task.options.domain.bounds(name) for name in ("mass", "friction", "observation_noise")}
        self._task = task
        self._noisy = ranges["observation_noise"][1] > 0
        self._varied = [
            field for name, fields in _SCALED.items() if ranges[name][0] < ranges[name][1] for field in fields
        ]
        super().__init__(task, Physics(task.model, num_envs, device, task.physics_steps, varied=self._varied), num_envs)
        actions = MAX_LATENCY + 1, len(task.control.low)
        sizes = (11, 7, actions[0] * actions[1], 4, 3, task.memory_size, 1)
        reference, self._servo, delayed, self._domain, self._episode, self._memory, self._key = self.record.split(
            [*sizes, self.record.shape[1] - sum(sizes)], dim=1
        )[:-1]
        self._delayed = delayed.view(num_envs, *actions)
        kinematics = WarpKinematics(self.device, self.physics.stream)
        self._control = CONTROLS[task.options.action_space](kinematics, 1.0 / self.spec.control_hz, reference)
        self._fractions = torch.tensor(task.fractions[:, :, None], device=self.device)
        self._worlds = torch.arange(num_envs, device=self.device)
        self._view = View(task.model, lambda field: self.physics.field(field).double())

    def _extra(self) -> list[NDArray[Any]]:
        """Return the key of the noise and the model's fields that differ."""
        key = self._task.np_random.integers(2**31, size=1)
        return [key, *(getattr(self._task.model, field) for field in self._varied)]

    def _loaded(self, slots: list[int]) -> None:
        if not self._varied:
            return
        fields = [self.physics.model_field(field) for field in self._varied]
        sizes = [field[0].numel() for field in fields]
        for field, values in zip(fields, self.record[:, -sum(sizes) :].split(sizes, dim=1), strict=True):
            field.copy_(values.view(field.shape))

    def _act(self, actions: Tensor) -> None:
        self._delayed[:, 1:] = self._delayed[:, :-1].clone()
        self._delayed[:, 0] = actions
        self._control.command(self._delayed[self._worlds, self._domain[:, 2].long()])
        start = self._servo.clone()
        self._servo[:, :6], self._servo[:, 6:] = self._control.q, self._control.opening * STROKE
        self.physics.advance(start + self._fractions * (self._servo - start))

    def _judge(self, actions: Tensor, sane: Tensor) -> Played:
        self.physics.call("kinematics")
        verdict = self._task.judge(self._view, self._memory)
        outcome = self._task.outcome(verdict, self._episode)
        self._memory.copy_(verdict.memory)
        self._episode.copy_(outcome.episode)
        state = self._task.state(self._view)
        if self._noisy:
            noise = normal(self._key[:, 0], self._episode[:, 0], state.shape[1], self.physics.stream)
            state = state + self._domain[:, 3:] * noise
        way = self._episode[:, 2]
        return Played(state, outcome.reward, outcome.success, outcome.truncated, outcome.success, way)
