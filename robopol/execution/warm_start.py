"""Warm start: the next plan is the last one, shifted and refined by a few steps of the sampler (RTI-DP)."""

from typing import Literal

from pydantic import Field

from robopol.execution.executor import ExecutorConfig
from robopol.policies import Policy, PolicySpec
from robopol.steering.warm_start import WarmStartConfig as WarmStart


class WarmStartConfig(ExecutorConfig):
    """Receding horizon of a policy that is steered to refine its last plan (RTI-DP, arXiv 2508.05396).

    Attributes:
        steps: How many of the last steps of the sampler's walk each later plan takes.
        renoise: Whether the old plan is noised to the level at which they begin; as published, it is not.
        n_action_steps: Control steps between two plans.
    """

    kind: Literal["warm_start"] = "warm_start"
    steps: int = Field(3, ge=1)
    renoise: bool = False
    n_action_steps: int = Field(1, ge=1)

    def prepared(self, policy: Policy) -> Policy:
        """See `ExecutorConfig.prepared`."""
        return policy.steered(WarmStart(steps=self.steps, renoise=self.renoise))

    def period(self, spec: PolicySpec) -> int:
        """See `ExecutorConfig.period`."""
        return self.n_action_steps
