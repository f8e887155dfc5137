"""What a field's x0-estimates are along a walk, and what its output has to be for them to be others."""

from typing import cast

import torch
from torch import Tensor

from robopol.policies.field import Field, Schedule
from robopol.policies.generative import GenerativePolicy
from robopol.policies.prediction import reading
from robopol.steering.steering import Planning


class Estimates:
    """Reads and moves the estimates at the levels of a walk; every prediction is linear in the network's output.

    Attributes:
        alpha: Of each level.
        sigma: The same.
        clips: Whether the sampler clips every estimate to [-1, 1].
    """

    def __init__(self, field: Field, schedule: Schedule, planning: Planning) -> None:
        """Tabulate.

        Args:
            field: What is walked.
            schedule: Of the walk.
            planning: For which plans.
        """
        level = field.path.level(schedule.times)
        read = reading(field.prediction, level, field.path)
        self.alpha, self.sigma = level.alpha.tolist(), level.sigma.tolist()
        self._x, self._output = read.x0_x.tolist(), read.x0_out.tolist()
        self.clips = cast(GenerativePolicy, planning.policy).sampler.config.clip == "every"

    def read(self, x: Tensor, output: Tensor, i: int) -> Tensor:
        """Return the estimate (B, Tp, A) of a state and the network's output there."""
        return self._x[i] * x + self._output[i] * output

    def clipped(self, x0: Tensor) -> Tensor:
        """Return an estimate as the sampler uses it."""
        return x0.clamp(-1, 1) if self.clips else x0

    def moved(self, x: Tensor, output: Tensor, i: int, shift: Tensor) -> Tensor:
        """Return the output (B, Tp, A) whose estimate is moved by ``shift``, of its shape; where that is 0, it stays.

        Samplers that clip x0 may keep the eps of the unclipped one. Beyond the bounds such a pair drives the state away
        from where the estimate was moved, so that a moved entry gets the eps that belongs to its clipped x0.
        """
        if not self.clips:
            return output + shift / self._output[i]
        moved = self.clipped(self.clipped(self.read(x, output, i)) + shift)
        return torch.where(shift == 0, output, (moved - self._x[i] * x) / self._output[i])
