"""Hard inpainting: the next plan begins with what is executed of the last one while it is made."""

from typing import Literal

from pydantic import Field

from robopol.execution.executor import ExecutorConfig
from robopol.execution.receding_horizon import RecedingHorizon
from robopol.policies import Policy
from robopol.steering.inpainting import InpaintingConfig as Inpainting


class InpaintingConfig(ExecutorConfig):
    """Receding horizon of a policy whose plans begin with the actions that are executed until they arrive.

    Attributes:
        n_action_steps: Control steps between two plans, or as many as the latency, if that is more.
    """

    kind: Literal["inpainting"] = "inpainting"
    n_action_steps: int = Field(1, ge=1)

    def build(self, policy: Policy) -> RecedingHorizon:
        """Return the executor of a policy.

        Raises:
            ConfigError: If the policy walks no field, or its plans do not last so long.
        """
        return RecedingHorizon(policy.steered(Inpainting(delay=self.latency)), self.n_action_steps, self.latency)
