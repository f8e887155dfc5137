"""What counts as a violation of safety: said by the data, not by code."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.config import Config
from robopol.errors import ConfigError
from robopol.policies import Needs, PolicySpec
from robopol.registry import nearest


class BoundConfig(Config):
    """An entry of an observation leaves its bounds, before, between or after the actions of a chunk.

    Attributes:
        key: The low-dim observation.
        entry: Which entry of it, from 0.
        low: Smallest safe value, environment units; None is no bound.
        high: Largest safe value; None is no bound.
    """

    kind: Literal["bound"] = "bound"
    key: str = "state"
    entry: int = Field(0, ge=0)
    low: float | None = None
    high: float | None = None

    @property
    def needs(self) -> Needs:
        """What it reads of a batch."""
        return Needs(plan=True)

    def check(self, spec: PolicySpec) -> None:
        """Raise a ConfigError if there is no bound, or no such entry among what a model looks at."""
        if self.low is None and self.high is None:
            raise ConfigError("a violation that has no bound never happens: set its low, its high or both")
        shape = spec.obs_shapes.get(self.key)
        if shape is None:
            raise ConfigError(
                f"violations are read from the observation '{self.key}'{nearest(self.key, spec.obs_shapes)}, and the "
                f"model looks at {', '.join(spec.obs_shapes)}: name it in model.encoder.keys"
            )
        if len(shape) != 1 or self.entry >= shape[0]:
            raise ConfigError(f"violations are read from entry {self.entry} of '{self.key}', which is of shape {shape}")

    def violated(self, batch: Mapping[str, Any], first: int) -> Tensor:
        """Say which chunks violate it.

        Args:
            batch: Of windows whose actions from ``first`` on are the chunks.
            first: Index of the action that belongs to the newest observation.

        Returns:
            (B,) bool.
        """
        value = batch["plan"][self.key][:, first:, self.entry]  # (B, h + 1)
        bad = torch.zeros_like(value, dtype=torch.bool)
        if self.low is not None:
            bad |= value < self.low
        if self.high is not None:
            bad |= value > self.high
        return (bad & batch["plan_mask"][:, first:]).any(-1)


class CostConfig(Config):
    """The reward of a step lies below a threshold, e.g. where collisions are punished.

    Attributes:
        threshold: Rewards below it are violations.
    """

    kind: Literal["cost"] = "cost"
    threshold: float = 0.0

    @property
    def needs(self) -> Needs:
        """What it reads of a batch."""
        return Needs(rewards=True)

    def check(self, spec: PolicySpec) -> None:
        """Every model will do; see `BoundConfig.check`."""

    def violated(self, batch: Mapping[str, Any], first: int) -> Tensor:
        """See `BoundConfig.violated`."""
        bad: Tensor = (batch["rewards"] < self.threshold) & batch["mask"]
        return bad[:, first:].any(-1)
