"""Temporal ensembling: plan in every step and average what all plans say about it."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.ensembling import weights
from robopol.execution.executor import Executor, ExecutorConfig
from robopol.policies import Policy, PolicySpec


class TemporalEnsembleConfig(ExecutorConfig):
    """Plan in every step and execute a weighted mean of all plans that reach to it (Zhao et al. 2023, ACT, alg. 2).

    The i-th oldest of these plans, from i = 0 on, weighs exp(-m i): with m > 0 the oldest plan weighs most, with
    m = 0 all weigh the same, and with m < 0 the newest weighs most.

    Attributes:
        m: How much less each newer plan weighs.
    """

    kind: Literal["temporal_ensemble"] = "temporal_ensemble"
    m: float = Field(0.01, allow_inf_nan=False)

    @property
    def merging(self) -> dict[str, Any]:
        """See `ExecutorConfig.merging`."""
        return {"kind": "ensemble", "m": self.m}

    def period(self, spec: PolicySpec) -> int:
        """See `ExecutorConfig.period`."""
        return 1

    def build(self, policy: Policy) -> "TemporalEnsemble":
        """See `ExecutorConfig.build`."""
        return TemporalEnsemble(policy, self.m, self.latency)


class TemporalEnsemble(Executor):
    """Executes the weighted mean of all plans."""

    def __init__(self, policy: Policy, m: float = 0.01, latency: int = 0) -> None:
        """See `TemporalEnsembleConfig`."""
        super().__init__(policy, 1, latency)
        self._weights = [torch.from_numpy(weights(m, count)) for count in range(1, policy.spec.chunk + 1)]

    def _merged(self, actions: Tensor, since: Sequence[int]) -> Tensor:
        return (self._weights[len(actions) - 1][:, None] * actions).sum(0).float()
