"""Receding horizon: execute the beginning of a plan, then the beginning of the next."""

from typing import Literal

from pydantic import Field

from robopol.execution.executor import Executor, ExecutorConfig
from robopol.policies import Policy


class RecedingHorizonConfig(ExecutorConfig):
    """Execute the first actions of each plan, as published for diffusion policies (Chi et al. 2023).

    Attributes:
        n_action_steps: Control steps between two plans; None is what the policy was made for.
    """

    kind: Literal["receding_horizon"] = "receding_horizon"
    n_action_steps: int | None = Field(None, ge=1)

    def build(self, policy: Policy) -> "RecedingHorizon":
        """Return the executor of a policy.

        Raises:
            ConfigError: If its plans do not last so long.
        """
        return RecedingHorizon(policy, self.n_action_steps, self.latency)


class RecedingHorizon(Executor):
    """Executes the newest plan."""

    def __init__(self, policy: Policy, n_action_steps: int | None = None, latency: int = 0) -> None:
        """See `RecedingHorizonConfig`."""
        super().__init__(policy, n_action_steps or policy.spec.n_action_steps, latency)
