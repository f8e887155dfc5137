"""Choose among proposals: best-of-N and softmax re-ranking.

With Q of an offline critic as the objective it is V-GPS (Nakamoto et al. 2024, arXiv 2410.13816); with the nearness to
a user's sketch, ITPS's post-hoc ranking (Wang et al. 2025); with -Q_h as the constraint, FISOR's choice of the safest
(Zheng et al. 2024).
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.config import OneOf
from robopol.policies import Policy
from robopol.policies.selection import choose, effective_number
from robopol.steering.log import standard_deviation
from robopol.steering.objectives import Objective
from robopol.steering.steering import Planning, Steering, SteeringConfig


class BestOfConfig(SteeringConfig):
    """Take one of n proposals.

    Attributes:
        objective: What scores them; higher is better. None lets chance choose, as a control.
        n: How many; 1 is the base policy.
        temperature: 0 takes the best; otherwise each is taken with probability proportional to
            exp(score / temperature).
        relative: Whether the temperature is in standard deviations of the n scores instead of the objective's units.
        constraint: Must be at least 0: where some proposals satisfy it, one of them is taken by the objective; where
            none does, the one that comes closest.
    """

    kind: Literal["best_of"] = "best_of"
    objective: Annotated[Any, OneOf("objective")] | None = None
    n: int = Bound(16, ge=1)
    temperature: float = Bound(0.0, ge=0)
    relative: bool = False
    constraint: Annotated[Any, OneOf("objective")] | None = None

    def build(self, policy: Policy) -> "BestOf":
        """See `SteeringConfig.build`."""
        objective, constraint = (one and one.build(policy) for one in (self.objective, self.constraint))
        return BestOf(self, objective, constraint)


class BestOf(Steering):
    """See `BestOfConfig`."""

    config: BestOfConfig

    def __init__(self, config: BestOfConfig, objective: Objective | None, constraint: Objective | None) -> None:
        """Join what scores; see `BestOfConfig.build`."""
        found = {"objective": objective and objective.config, "constraint": constraint and constraint.config}
        super().__init__(config.model_copy(update=found))
        self.objective, self.constraint = objective, constraint
        self.proposals = config.n
        for part in (objective, constraint):
            self.obs_shapes |= {} if part is None else part.obs_shapes

    def select(self, windows: Tensor, planning: Planning) -> Tensor:
        """See `Steering.select`."""
        shape = windows.shape[:3]
        scores = raw = self._score(self.objective, windows, planning)
        spread = standard_deviation(scores)
        planning.note("best_of/spread", spread)
        temperature = self.config.temperature
        noise = planning.normal(*shape[1:]) if temperature > 0 or self.objective is None else None
        if self.objective is None:
            temperature = torch.inf
        elif self.config.relative:
            scores = scores / spread[..., None].clamp(min=1e-12)
        if self.constraint is not None:
            margin = self._score(self.constraint, windows, planning)
            safe = margin >= 0
            planning.note("best_of/feasible", safe)
            closest = margin == margin.amax(-1, keepdim=True)
            scores = torch.where(torch.where(safe.any(-1, keepdim=True), safe, closest), scores, -torch.inf)
        chosen = choose(scores, temperature, noise)
        planning.note("best_of/effective_number", effective_number(scores, temperature))
        if self.objective is not None:
            planning.note("best_of/gain", raw.take_along_dim(chosen[..., None], -1)[..., 0] - raw.mean(-1))
        return chosen

    @staticmethod
    def _score(objective: Objective | None, windows: Tensor, planning: Planning) -> Tensor:
        """Score (B, M, N, Tp, A), (B, M, N); all alike without an objective."""
        if objective is None:
            return windows.new_zeros(windows.shape[:3])
        return objective.score(planning.obs, windows.flatten(1, 2)).unflatten(1, windows.shape[1:3])
