"""Open loop: execute each plan to its end."""

from typing import Literal

from robopol.execution.executor import ExecutorConfig
from robopol.execution.receding_horizon import RecedingHorizon
from robopol.policies import Policy


class OpenLoopConfig(ExecutorConfig):
    """Execute all H actions of a plan, then ask for the next; with a latency, the episode starves until it arrives."""

    kind: Literal["open_loop"] = "open_loop"

    def build(self, policy: Policy) -> RecedingHorizon:
        """Return the executor of a policy.

        Raises:
            ConfigError: If its plans are over when they arrive.
        """
        return RecedingHorizon(policy, policy.spec.chunk, self.latency)
