"""Hard inpainting: a plan begins with the actions of the last one that are executed while it is made.

At every noise level these entries of the state are the known actions, noised to that level, and the walk fills in the
rest (Lugmayr et al. 2022; Janner et al. 2022). To hold the x0-estimate of an entry is to do so: whatever steps a
sampler takes from it, alpha' x0 + sigma' eps, x0 is known, and eps is the noise that the entry began with or was drawn
for it. With few steps the rest follows little, with one jump of a consistency model not at all. Real-time chunking
(Black et al. 2025) also pulls at the actions after these, which here may jump.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field as Bound

from robopol.policies import Policy
from robopol.policies.field import Field
from robopol.steering.nudge import FilledField
from robopol.steering.real_time_chunking import left, soft_mask
from robopol.steering.steering import Planning, Steering, SteeringConfig, of_levels


class InpaintingConfig(SteeringConfig):
    """Begin with what is executed of the last plan meanwhile.

    Attributes:
        delay: How many of its actions that are, d: the latency in control steps; 0 is the base policy. Whoever
            knows it better, as a robot does, says so with each plan.
    """

    kind: Literal["inpainting"] = "inpainting"
    delay: int = Bound(0, ge=0)

    def build(self, policy: Policy) -> "Inpainting":
        """See `SteeringConfig.build`."""
        of_levels(policy, "inpainting")
        return Inpainting(self)


class Inpainting(Steering):
    """See `InpaintingConfig`."""

    config: InpaintingConfig
    goes_on: ClassVar[bool] = True

    def field(self, field: Field, planning: Planning) -> Field:
        """See `Steering.field`."""
        spec = planning.policy.spec
        meant = torch.zeros(planning.rows, spec.horizon, 1, dtype=torch.bool)
        for row, old in enumerate(planning.previous):
            if old is not None:
                delay = self.config.delay if old.delay is None else old.delay
                known = soft_mask(delay, old.passed, spec.chunk, "hard")
                meant[row, spec.n_obs_steps - 1 :, 0] = known.bool()
        if not meant.any():
            return field
        windows = planning.policy.action_normalizer.normalize(left(planning).to(planning.device))
        filled = torch.where(meant.to(planning.device), windows, torch.nan)
        return FilledField(field, filled.repeat_interleave(planning.proposals, 0))
