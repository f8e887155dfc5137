"""What every algorithm is: a policy it trains, one update, and a state that can be saved."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robopol.policies import Policy


class Algorithm(ABC):
    """Losses and an update; it owns no loop, no data and no files.

    Attributes:
        policy: The policy that is trained.
    """

    policy: Policy

    @abstractmethod
    def update(self, batch: Mapping[str, Any], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one gradient step.

        Args:
            batch: See `robopol.data.Windows.gather`.
            step: Updates done before this one; schedules are functions of it.
            generator: Source of the update's own randomness, on the policy's device.

        Returns:
            Scalars to log, as tensors so that nothing waits for the device.
        """

    @abstractmethod
    def deployed(self) -> Policy:
        """Return the policy to evaluate and to save, e.g. the averaged one."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return everything that further updates depend on, as named tensors."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
