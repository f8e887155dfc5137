"""Feasibility: which states can be kept safe for ever, and which actions keep them so."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Generator, Tensor

from robopol.models.critic import Critic, CriticConfig
from robopol.policies import PolicySpec


class FeasibilityConfig(CriticConfig):
    """Q_h of chunks of h actions and V_h of states; at most 0 is feasible (Zheng et al. 2024, FISOR).

    Attributes:
        discount: gamma, of each step; below 1.
        ensemble: Heads of Q_h; the greatest of them is what is trusted.
    """

    kind: Literal["feasibility"] = "feasibility"
    discount: float = Field(0.99, ge=0, lt=1)

    def build(self, spec: PolicySpec) -> "FeasibilityModel":
        """See `ModelConfig.build`."""
        return FeasibilityModel(self, spec)


class FeasibilityModel(Critic):
    """See `FeasibilityConfig`.

    V_h(s) is the worst violation on the safest way from s that the data know (Hamilton-Jacobi reachability, discounted
    as in Fisac et al. 2019). Its unit is that of the violations it was trained with.
    """

    config: FeasibilityConfig

    def q(self, obs: Mapping[str, Tensor], actions: Tensor, generator: Generator | None = None) -> Tensor:
        """Return how unsafe some actions are: the worst that a head says, (B,) or (B, n); see `Heads.judge`."""
        return self.judge(obs, actions, generator).amax(0)
