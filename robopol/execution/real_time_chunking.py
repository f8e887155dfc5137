"""Real-time chunking: while a plan is executed the next one is made, so that it goes on from it (Black et al. 2025)."""

from typing import Any, Literal

from pydantic import Field

from robopol.execution.executor import ExecutorConfig
from robopol.policies import Policy, PolicySpec
from robopol.steering.real_time_chunking import Mask
from robopol.steering.real_time_chunking import RealTimeChunkingConfig as RealTimeChunking


class RealTimeChunkingConfig(ExecutorConfig):
    """Receding horizon of a policy that is pulled towards what is left of its last plan; its delay is the latency.

    Attributes:
        n_action_steps: Control steps between two plans, or as many as the latency, if that is more.
        beta: See `robopol.steering.RealTimeChunkingConfig`.
        mask: The same.
        jacobian: The same.
    """

    kind: Literal["real_time_chunking"] = "real_time_chunking"
    n_action_steps: int = Field(1, ge=1)
    beta: float = Field(5.0, ge=0, allow_inf_nan=False)
    mask: Mask = "exp"
    jacobian: bool = True

    @property
    def merging(self) -> dict[str, Any]:
        """See `ExecutorConfig.merging`."""
        return {"kind": "continue"}

    def prepared(self, policy: Policy) -> Policy:
        """See `ExecutorConfig.prepared`."""
        return policy.steered(
            RealTimeChunking(delay=self.latency, beta=self.beta, mask=self.mask, jacobian=self.jacobian)
        )

    def period(self, spec: PolicySpec) -> int:
        """See `ExecutorConfig.period`."""
        return self.n_action_steps
