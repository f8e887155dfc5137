"""Hard inpainting: the next plan begins with what is executed of the last one while it is made."""

from typing import Any, Literal

from pydantic import Field

from robopol.execution.executor import ExecutorConfig
from robopol.policies import Policy, PolicySpec
from robopol.steering.inpainting import InpaintingConfig as Inpainting


class InpaintingConfig(ExecutorConfig):
    """Receding horizon of a policy whose plans begin with the actions that are executed until they arrive.

    Attributes:
        n_action_steps: Control steps between two plans, or as many as the latency, if that is more.
    """

    kind: Literal["inpainting"] = "inpainting"
    n_action_steps: int = Field(1, ge=1)

    @property
    def merging(self) -> dict[str, Any]:
        """See `ExecutorConfig.merging`."""
        return {"kind": "continue"}

    def prepared(self, policy: Policy) -> Policy:
        """See `ExecutorConfig.prepared`."""
        return policy.steered(Inpainting(delay=self.latency))

    def period(self, spec: PolicySpec) -> int:
        """See `ExecutorConfig.period`."""
        return self.n_action_steps
