"""Open loop: execute each plan to its end."""

from typing import Literal

from robopol.execution.executor import ExecutorConfig
from robopol.policies import PolicySpec


class OpenLoopConfig(ExecutorConfig):
    """Execute all H actions of a plan, then ask for the next; with a latency, the episode starves until it arrives."""

    kind: Literal["open_loop"] = "open_loop"

    def period(self, spec: PolicySpec) -> int:
        """See `ExecutorConfig.period`."""
        return spec.chunk
