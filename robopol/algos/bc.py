"""Behaviour cloning: the policy's own loss on demonstrations."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor

from robopol.algos.regression import Regression, RegressionConfig
from robopol.networks.precision import Runtime
from robopol.policies import Needs, Policy


class BCConfig(RegressionConfig):
    """Behaviour cloning."""

    kind: Literal["bc"] = "bc"

    def build(self, policy: Policy, total_updates: int, runtime: Runtime) -> "BC":
        """Return the algorithm.

        Args:
            policy: The policy to train, on its device.
            total_updates: Length of the learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.
        """
        return BC(self, policy, total_updates, runtime)


BESIDE = BCConfig(lr=3e-4, betas=(0.9, 0.999), weight_decay=0.0, ema_max=0.999)
"""Behaviour cloning beside what earns: at one rate of Adam with everything else, averaged over less."""


class BC(Regression):
    """See `BCConfig`.

    Attributes:
        policy: The policy that is trained.
    """

    def __init__(self, config: BCConfig, policy: Policy, total_updates: int, runtime: Runtime) -> None:
        """Make the optimiser and the averaged copy; see `BCConfig.build`."""
        self.policy = policy
        super().__init__(config, policy, "policy", total_updates, runtime)

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`; what the policy's loss reads."""
        return self.policy.needs

    def losses(self, batch: Mapping[str, Any], step: int, generator: torch.Generator) -> Tensor:
        """See `Regression.losses`."""
        return self.policy.loss(batch, generator)

    def deployed(self) -> Policy:
        """Return the averaged policy."""
        return cast(Policy, self.ema.module)
