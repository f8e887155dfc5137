"""Real-time chunking: pull a plan towards what is left of the last one (RTC; Black et al. 2025).

While a policy plans, the last plan goes on. Its next ``delay`` actions are over when the new plan arrives: the new plan
has to begin with them, and should then go on from them rather than jump. Of what is left of the last plan, y, the first
actions weigh 1, and the later ones less and less (the soft mask W). Maximising f(x0) = -1/2 sum W (y - x0)^2 over the
estimate, through the network, is guidance by the score of the likelihood of y,

    g = 1/r^2 J^T W (y - x0),    r^2 = sigma^2 / (alpha^2 + sigma^2),    J = d x0 / d x

(Pokle et al. 2023 for flows; r^2 is the variance of x0 given x for standard normal data). On any path it moves x0 by
sigma^2 / alpha g. Published, the velocity of a straight path moves by at most beta J^T W (y - x0): every path is a
straight one after division of x by alpha + sigma, so that with u = sigma / (alpha + sigma) and the J of that frame,

    x0 <- x0 + u min(beta, (u^2 + (1 - u)^2) / (u (1 - u))) J^T W (y - x0)

says the same for all of them. Without the network's Jacobian, J = 1 (as in LeRobot's use of it), a step costs one
evaluation of the network and no backward pass.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.networks.denoiser import Walk
from robopol.policies import Policy, Previous
from robopol.policies.field import DerivedField, Field, Schedule
from robopol.steering.estimates import Estimates
from robopol.steering.steering import Planning, Steering, SteeringConfig, of_means

Mask = Literal["exp", "linear", "hard"]


class RealTimeChunkingConfig(SteeringConfig):
    """Pull a plan towards what is left of the last one.

    Attributes:
        delay: How many actions of the last plan are still executed, d: the latency in control steps. Whoever knows it
            better, as a robot does, says so with each plan.
        beta: Most that the velocity may move for an error of 1; 0 is the base policy.
        mask: How the weight falls from 1 at the last of these actions to 0 where the last plan ends: ``exp`` as
            published, ``linear``, or ``hard``: at once.
        jacobian: Whether the network's Jacobian is used, as published; it costs a backward pass a step.
    """

    kind: Literal["real_time_chunking"] = "real_time_chunking"
    delay: int = Bound(0, ge=0)
    beta: float = Bound(5.0, ge=0, allow_inf_nan=False)
    mask: Mask = "exp"
    jacobian: bool = True

    def build(self, policy: Policy) -> "RealTimeChunking":
        """See `SteeringConfig.build`."""
        of_means(policy, "real_time_chunking")
        return RealTimeChunking(self)


class RealTimeChunking(Steering):
    """See `RealTimeChunkingConfig`."""

    config: RealTimeChunkingConfig
    goes_on: ClassVar[bool] = True

    def field(self, field: Field, planning: Planning) -> Field:
        """See `Steering.field`."""
        spec, config = planning.policy.spec, self.config
        weights = torch.zeros(planning.rows, spec.horizon, 1)
        for row, old in enumerate(planning.previous):
            if old is not None:
                delay = config.delay if old.delay is None else old.delay
                weights[row, spec.n_obs_steps - 1 :, 0] = soft_mask(delay, old.passed, spec.chunk, config.mask)
        if config.beta == 0 or not weights.any():
            return field
        known = planning.policy.action_normalizer.normalize(left(planning).to(planning.device))
        k = planning.proposals
        weights = weights.to(planning.device).repeat_interleave(k, 0)
        return PulledField(field, config, planning, known.repeat_interleave(k, 0), weights)


class PulledField(DerivedField):
    """A field whose x0-estimate is pulled towards known actions."""

    def __init__(
        self, field: Field, config: RealTimeChunkingConfig, planning: Planning, known: Tensor, weights: Tensor
    ) -> None:
        """Pull a field.

        Args:
            field: What is pulled.
            config: How.
            planning: For which plans.
            known: y, (B, Tp, A), normalised.
            weights: W, (B, Tp, 1).
        """
        super().__init__(field)
        self.config, self.planning, self.known, self.weights = config, planning, known, weights

    def prepare(self, schedule: Schedule, cond: Tensor) -> Walk:
        """See `Field.prepare`."""
        walk, estimates = self.field.prepare(schedule, cond), Estimates(self, schedule, self.planning)
        sums = [alpha + sigma for alpha, sigma in zip(estimates.alpha, estimates.sigma, strict=True)]
        gains = [gain(sigma / total, self.config.beta) for sigma, total in zip(estimates.sigma, sums, strict=True)]
        free = ~self.weights.any(1, keepdim=True)  # (B, 1, 1)
        mixed = bool(free.any())

        def pulled(x: Tensor, i: int) -> Tensor:
            if self.config.jacobian:
                with torch.enable_grad():
                    x = x.detach().requires_grad_()
                    output = walk(x, i)
                    x0 = estimates.read(x, output, i)
                    error = self.weights * (self.known - estimates.clipped(x0.detach()))
                    pull = sums[i] * torch.autograd.grad(x0, x, error)[0]
                x, output = x.detach(), output.detach()
                if mixed:  # kernels that keep gradients may round otherwise
                    output = torch.where(free, walk(x, i), output)
            else:
                output = walk(x, i)
                pull = self.weights * (self.known - estimates.clipped(estimates.read(x, output, i)))
            shift = gains[i] * pull.nan_to_num(0.0, 0.0, 0.0)
            self.planning.note("real_time_chunking/shift", shift.norm(dim=-1))
            return estimates.moved(x, output, i, shift)

        return pulled


def gain(share: float, beta: float) -> float:
    """Return u min(beta, (u^2 + (1 - u)^2) / (u (1 - u))) for the share u of the noise, in [0, 1]."""
    exact = math.inf if share == 1 else (share**2 + (1 - share) ** 2) / (1 - share)
    return min(share * beta, exact)


def soft_mask(delay: int, passed: int, chunk: int, mask: Mask) -> Tensor:
    """Return the weights W (H,) of the actions from now on (Black et al. 2025, eq. 5).

    Args:
        delay: d, how many are still those of the last plan.
        passed: s, control steps since the last plan was asked for; it knows H - s actions from now on.
        chunk: H.
        mask: How they fall.
    """
    end = max(chunk - passed, 0)
    start, step = min(delay, end), torch.arange(chunk)
    if mask == "hard":
        return (step < start).float()
    weights = ((start - 1 - step) / (end - start + 1) + 1).clamp(0, 1)
    if mask == "exp":
        weights = weights * weights.expm1() / (math.e - 1)
    return torch.where(step < end, weights, 0.0)


def left(planning: Planning) -> Tensor:
    """Return the last windows (B, Tp, A), moved on to now, in environment units; zeros where there is none."""
    spec = planning.policy.spec
    nothing = Previous(torch.zeros(spec.horizon, spec.action_dim), 0)
    return torch.stack([(old or nothing).shifted() for old in planning.previous])
