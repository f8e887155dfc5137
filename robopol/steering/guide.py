"""Guide a walk by the gradient of an objective: the score of the plans is bent towards what scores well.

Adding g to the score of x_t = alpha x0 + sigma eps moves the x0-estimate by sigma^2 / alpha g, whatever the network
predicts. Where the gradient is taken makes the methods:

* ``x0``: at the estimate, without the network's Jacobian, which is replaced by that of data of standard deviation s:
  x0 <- x0 + scale r^2 grad f(x0), r^2 = s^2 sigma^2 / (alpha^2 s^2 + sigma^2). One evaluation of the network, bounded
  at both ends (He et al. 2024, MPGD; exact for Gaussian data and linear f).
* ``backprop``: at the estimate, through the network: g = scale grad_x f(x0(x)) (Chung et al. 2023, DPS).
* ``noisy``: at the noised plan itself: g = scale grad f(x), as classifiers and dynamics that were trained on noised
  plans want it (Dhariwal & Nichol 2021; DynaGuide, Du & Song 2025), and as ITPS does with user input (Wang et al.
  2025).
"""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Tensor

from robopol.config import OneOf
from robopol.networks.denoiser import Walk
from robopol.policies import Policy
from robopol.policies.field import DerivedField, Field, Schedule
from robopol.steering.estimates import Estimates
from robopol.steering.objectives import Objective
from robopol.steering.steering import Planning, Steering, SteeringConfig, of_means

Share = Annotated[float, Bound(ge=0, le=1)]


class GuideConfig(SteeringConfig):
    """Bend the field towards plans that score well.

    Attributes:
        objective: What is climbed; its gradient is taken in normalised actions.
        scale: How strongly; 0 is the base policy.
        at: Where the gradient is taken; see the module's text.
        cap: Longest shift of the x0-estimate at one action, normalised units; None is any.
        interval: Noise levels sigma / (alpha + sigma), from 0 at data to 1 at noise, between which the walk is guided.
        data_std: s, the standard deviation that normalised actions are taken to have, for ``at=x0``.
        space: ``score`` adds the gradient to the score; ``eps`` takes it from the noise estimate without a factor of
            sigma, as ITPS is published, so that it grows as the noise falls.
    """

    kind: Literal["guide"] = "guide"
    objective: Annotated[Any, OneOf("objective")]
    scale: float = Bound(1.0, ge=0, allow_inf_nan=False)
    at: Literal["x0", "backprop", "noisy"] = "x0"
    cap: float | None = Bound(None, gt=0)
    interval: tuple[Share, Share] = (0.0, 1.0)
    data_std: float = Bound(0.5, gt=0)
    space: Literal["score", "eps"] = "score"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.interval[0] >= self.interval[1]:
            raise ValueError(f"interval {self.interval} is empty: give the lower noise level first")
        if self.space == "eps" and self.at == "x0":
            raise ValueError("at=x0 says itself how far the estimate moves: use space=eps with at=noisy or at=backprop")
        return self

    def build(self, policy: Policy) -> "Guide":
        """See `SteeringConfig.build`."""
        of_means(policy, "guide")
        return Guide(self, self.objective.build(policy))


class Guide(Steering):
    """See `GuideConfig`."""

    config: GuideConfig

    def __init__(self, config: GuideConfig, objective: Objective) -> None:
        """Take over the objective; see `GuideConfig.build`."""
        super().__init__(config.model_copy(update={"objective": objective.config}))
        self.objective = objective
        self.obs_shapes = dict(objective.obs_shapes)

    def field(self, field: Field, planning: Planning) -> Field:
        """See `Steering.field`."""
        if self.config.scale == 0:
            return field
        return BentField(field, self, planning)


class BentField(DerivedField):
    """A field whose x0-estimate is moved by a guide."""

    def __init__(self, field: Field, guide: Guide, planning: Planning) -> None:
        """Bend a field.

        Args:
            field: What is bent.
            guide: By what.
            planning: For which plans.
        """
        super().__init__(field)
        self.guide, self.planning = guide, planning

    def prepare(self, schedule: Schedule, cond: Tensor) -> Walk:
        """See `Field.prepare`."""
        walk, config = self.field.prepare(schedule, cond), self.guide.config
        estimates = Estimates(self, schedule, self.planning)
        alpha, sigma = estimates.alpha, estimates.sigma
        low, high = config.interval

        def bent(x: Tensor, i: int) -> Tensor:
            pure = alpha[i] == 0
            if not low <= sigma[i] / (alpha[i] + sigma[i]) <= high or (pure and config.at == "noisy"):
                return walk(x, i)
            # at pure noise the estimate does not hang on the state, and the limit of both rules is that of x0
            if config.at == "backprop" and not pure:
                with torch.enable_grad():
                    x = x.detach().requires_grad_()
                    output = walk(x, i)
                    score = self._score(estimates.read(x, output, i))
                    gradient = torch.autograd.grad(score.sum(), x)[0]
                output, score = output.detach(), score.detach()
            else:
                output = walk(x, i)
                where = x if config.at == "noisy" else estimates.clipped(estimates.read(x, output, i))
                with torch.enable_grad():
                    where = where.detach().requires_grad_()
                    score = self._score(where)
                    gradient = torch.autograd.grad(score.sum(), where)[0]
            if config.at == "x0" or pure:
                gain = (config.data_std * sigma[i]) ** 2 / ((alpha[i] * config.data_std) ** 2 + sigma[i] ** 2)
            else:
                gain = sigma[i] ** 2 / alpha[i] if config.space == "score" else sigma[i] / alpha[i]
            shift = config.scale * gain * gradient.nan_to_num(0.0, 0.0, 0.0)
            length = shift.norm(dim=-1, keepdim=True)
            if config.cap is not None:
                shift = shift * (config.cap / length.clamp(min=config.cap))
                self.planning.note("guide/capped", length > config.cap)
            self.planning.note("guide/shift", length)
            self.planning.note("guide/score", score.detach())
            return estimates.moved(x, output, i, shift)

        return bent

    def _score(self, x: Tensor) -> Tensor:
        return self.guide.objective.score(self.planning.obs, self.planning.windows(x))
