"""Let a person's hand have its way: the first actions of every plan are given (physical correction of ITPS).

Wang et al. (2025) compare two ways. Moved by hand, a robot is somewhere else and plans anew from there: the plan itself
did not know (output perturbation). Or the rest of the plan is what the policy would do after such a beginning: at every
noise level the given actions are put into the estimate, and the walk fills in the rest (inpainting; Lugmayr et al.
2022, Janner et al. 2022).
"""

from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor

from robopol.data.reach import ROUNDING
from robopol.errors import ConfigError
from robopol.networks.denoiser import Walk
from robopol.policies import Policy
from robopol.policies.field import DerivedField, Field, Schedule
from robopol.policies.prediction import reading
from robopol.steering.objectives.point import Number
from robopol.steering.steering import Planning, Steering, SteeringConfig, of_levels


class NudgeConfig(SteeringConfig):
    """Fix the first actions from now on.

    It holds for every plan: steer the policy so while the person's hand is on the robot.

    Attributes:
        actions: The person's, (k, A) in environment units, the first for now; None where the policy decides. None at
            all is the base policy.
        how: ``inpaint``: the rest of the plan goes with them; ``output``: they replace what was planned.
    """

    kind: Literal["nudge"] = "nudge"
    actions: tuple[tuple[Number | None, ...], ...]
    how: Literal["inpaint", "output"] = "inpaint"

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if len({len(action) for action in self.actions}) > 1:
            raise ValueError(f"actions have as many entries each, got {self.actions}")
        return self

    def build(self, policy: Policy) -> "Nudge":
        """See `SteeringConfig.build`."""
        if self.how == "inpaint":
            of_levels(policy, "nudge with how=inpaint")
        spec = policy.spec
        if len(self.actions) > spec.chunk:
            raise ConfigError(f"nudge gives {len(self.actions)} actions, and plans have {spec.chunk} from now on")
        if self.actions and len(self.actions[0]) != spec.action_dim:
            raise ConfigError(
                f"nudge gives {len(self.actions[0])} numbers for an action, and the policy's have {spec.action_dim}: "
                f"{', '.join(spec.action_names)}"
            )
        made = Nudge(self, policy)
        if self.how == "inpaint" and policy.action_normalizer.fitted:  # else it is loaded, and was seen to when made
            _check_reach(made.given.to(policy.device), policy)
        return made


class Nudge(Steering):
    """See `NudgeConfig`."""

    config: NudgeConfig

    def __init__(self, config: NudgeConfig, policy: Policy) -> None:
        """Lay the actions out over a window; see `NudgeConfig.build`."""
        super().__init__(config)
        spec = policy.spec
        given = torch.full((spec.horizon, spec.action_dim), torch.nan)
        first = spec.n_obs_steps - 1
        for i, action in enumerate(config.actions):
            given[first + i] = torch.tensor([torch.nan if entry is None else entry for entry in action])
        self.given = given
        self.any = bool(given.isfinite().any())

    def field(self, field: Field, planning: Planning) -> Field:
        """See `Steering.field`."""
        if not self.any or self.config.how != "inpaint":
            return field
        return FilledField(field, planning.policy.action_normalizer.normalize(self.given.to(planning.device)))

    def output(self, windows: Tensor, planning: Planning) -> Tensor:
        """See `Steering.output`."""
        if not self.any or self.config.how != "output":
            return windows
        given = self.given.to(windows)
        return torch.where(given.isfinite(), given, windows)


def _check_reach(given: Tensor, policy: Policy) -> None:
    """See that walks end at given actions (Tp, A), not at the nearest ones that plans can be; NaN is none.

    Raises:
        ConfigError: If a sampler would clip one, or an entry never varied in the data, and so does in no plan.
    """
    normalizer = policy.action_normalizer
    scaled = normalizer.normalize(given)
    planned = normalizer.unnormalize(scaled.clamp(-1, 1) if policy.bounded else scaled)
    elsewhere = (planned - given).abs() > ROUNDING * (1 + given.abs())
    if elsewhere.any():
        step, entry = elsewhere.nonzero()[0].tolist()
        low, high = (normalizer.unnormalize(torch.full_like(given[0], end))[entry].item() for end in (-1, 1))
        raise ConfigError(
            f"nudge gives {policy.spec.action_names[entry]} = {given[step, entry]:.4g}, and the policy plans it in "
            f"[{low:.4g}, {high:.4g}]: give what lies there, or use how=output, which replaces what was planned"
        )


class FilledField(DerivedField):
    """A field part of whose x0-estimate is known."""

    def __init__(self, field: Field, known: Tensor) -> None:
        """Fill a field in.

        Args:
            field: What is filled in.
            known: (Tp, A), normalised; NaN where nothing is known.
        """
        super().__init__(field)
        self.known = known

    def prepare(self, schedule: Schedule, cond: Tensor) -> Walk:
        """See `Field.prepare`."""
        walk = self.field.prepare(schedule, cond)
        read = reading(self.prediction, self.path.level(schedule.times), self.path)
        x0_x, x0_out = read.x0_x.tolist(), read.x0_out.tolist()
        where = self.known.isfinite()

        def filled(x: Tensor, i: int) -> Tensor:
            return torch.where(where, (self.known - x0_x[i] * x) / x0_out[i], walk(x, i))

        return filled
