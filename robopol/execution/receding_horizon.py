"""Receding horizon: execute the beginning of a plan, then the beginning of the next."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from robopol.execution.executor import Executor, ExecutorConfig
from robopol.policies import Policy, PolicySpec


class RecedingHorizonConfig(ExecutorConfig):
    """Execute the first actions of each plan, as published for diffusion policies (Chi et al. 2023).

    Attributes:
        n_action_steps: Control steps between two plans; None is what the policy was made for.
        blend: B, over how many actions a new plan is faded in: the k-th of them, from 1 on, weighs k / (B + 1), and the
            plan that was followed the rest. 0 changes over at once.
    """

    kind: Literal["receding_horizon"] = "receding_horizon"
    n_action_steps: int | None = Field(None, ge=1)
    blend: int = Field(0, ge=0)

    @property
    def merging(self) -> dict[str, Any]:
        """See `ExecutorConfig.merging`."""
        return {"kind": "blend", "waypoints": self.blend} if self.blend else super().merging

    def period(self, spec: PolicySpec) -> int:
        """See `ExecutorConfig.period`."""
        return self.n_action_steps or spec.n_action_steps

    def build(self, policy: Policy) -> "RecedingHorizon":
        """See `ExecutorConfig.build`."""
        return RecedingHorizon(policy, self.n_action_steps, self.latency, self.blend)


class RecedingHorizon(Executor):
    """Executes the newest plan, into which it fades from the one before."""

    def __init__(self, policy: Policy, n_action_steps: int | None = None, latency: int = 0, blend: int = 0) -> None:
        """See `RecedingHorizonConfig`."""
        super().__init__(policy, n_action_steps or policy.spec.n_action_steps, latency)
        self.blend = blend

    def _merged(self, actions: Tensor, since: Sequence[int]) -> Tensor:
        found = actions[0]
        for action, steps in zip(actions[1:], since[1:], strict=True):
            weight = min(1.0, (steps + 1) / (self.blend + 1))
            found = weight * action + (1 - weight) * found
        return found
