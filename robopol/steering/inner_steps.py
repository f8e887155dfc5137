"""What happens at a noise level before a walk goes on: each step is taken several times, and led back between.

Guidance has more time to act at a level, and what it broke can be mended. Four ways back:

* ``time_travel``: noise is added up to the level again (Lugmayr et al. 2022, RePaint); the marginals of an unguided
  walk stay what they are.
* ``langevin``: a step of the unadjusted Langevin algorithm at the level, x - delta sigma eps + sqrt(2 delta) sigma z,
  in place of a way back (Song & Ermon 2019); they stay too, up to the step size.
* ``renoise``: the x0-estimate is noised, x <- alpha x0 + sigma z, as released with ITPS's stochastic sampling. The
  estimate is the mean of what the plan may become, not one of them: it narrows what is sampled. Of a consistency model
  it is one of them, and nothing narrows.
* ``repeat``: nothing, as released with DynaGuide: the next state is taken for one of the level. It narrows still more.
"""

import math
from typing import Literal

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.policies import Policy
from robopol.policies.paths import Level
from robopol.policies.samplers.sampler import Draw, Kernel
from robopol.steering.steering import Steering, SteeringConfig, generative, of_means


class InnerStepsConfig(SteeringConfig):
    """Take every step of the walk some times.

    Attributes:
        count: How often; 1 is the base policy.
        back: How the walk gets back to the level; see the module's text.
        step_size: delta of ``langevin``, in units of the level's variance.
    """

    kind: Literal["inner_steps"] = "inner_steps"
    count: int = Bound(4, ge=1)
    back: Literal["time_travel", "langevin", "renoise", "repeat"] = "time_travel"
    step_size: float = Bound(0.1, gt=0, lt=1)

    def build(self, policy: Policy) -> "InnerSteps":
        """See `SteeringConfig.build`."""
        if self.back in ("langevin", "repeat"):
            of_means(policy, f"inner_steps with back={self.back}")
        generative(policy, "inner_steps")
        return InnerSteps(self)


class InnerSteps(Steering):
    """See `InnerStepsConfig`; it is a `robopol.policies.samplers.sampler.Kernel`."""

    config: InnerStepsConfig

    @property
    def count(self) -> int:
        """See `Kernel.count`."""
        return self.config.count

    def kernel(self) -> Kernel | None:
        """See `Steering.kernel`."""
        return self if self.config.count > 1 else None

    def back(self, x: Tensor, x0: Tensor, following: Tensor, now: Level, then: Level, draw: Draw) -> Tensor:
        """See `Kernel.back`."""
        alpha, sigma = now.alpha.item(), now.sigma.item()
        if self.config.back == "repeat":
            return following
        if self.config.back == "renoise":
            return torch.add(alpha * x0, draw(), alpha=sigma)
        if self.config.back == "langevin":
            delta = self.config.step_size
            return x - delta * (x - alpha * x0) + math.sqrt(2 * delta) * sigma * draw()
        kept = alpha / then.alpha.item()
        return torch.add(
            kept * following, draw(), alpha=math.sqrt(max(sigma**2 - (kept * then.sigma.item()) ** 2, 0.0))
        )
