"""Real-time chunking: while a plan is executed the next one is made, so that it goes on from it (Black et al. 2025)."""

from typing import Literal

from pydantic import Field

from robopol.execution.executor import ExecutorConfig
from robopol.execution.receding_horizon import RecedingHorizon
from robopol.policies import Policy
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

    def build(self, policy: Policy) -> RecedingHorizon:
        """Return the executor of a policy.

        Raises:
            ConfigError: If the policy walks no field, or its plans do not last so long.
        """
        pull = RealTimeChunking(delay=self.latency, beta=self.beta, mask=self.mask, jacobian=self.jacobian)
        return RecedingHorizon(policy.steered(pull), self.n_action_steps, self.latency)
