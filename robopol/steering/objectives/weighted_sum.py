"""Several objectives as one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Tensor, nn

from robopol.config import OneOf
from robopol.policies import Policy
from robopol.steering.objectives.objective import Objective, ObjectiveConfig


class WeightedSumConfig(ObjectiveConfig):
    """A weighted sum of objectives.

    Attributes:
        objectives: What is summed.
        weights: One for each, finite; a negative one turns its objective round.
    """

    kind: Literal["weighted_sum"] = "weighted_sum"
    objectives: tuple[Annotated[Any, OneOf("objective")], ...] = Bound(min_length=1)
    weights: tuple[Annotated[float, Bound(allow_inf_nan=False)], ...]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.objectives) != len(self.weights):
            raise ValueError(f"{len(self.objectives)} objectives and {len(self.weights)} weights: give one for each")
        return self

    def build(self, policy: Policy) -> "WeightedSum":
        """See `ObjectiveConfig.build`."""
        return WeightedSum(self, [objective.build(policy) for objective in self.objectives])


class WeightedSum(Objective):
    """See `WeightedSumConfig`."""

    config: WeightedSumConfig

    def __init__(self, config: WeightedSumConfig, objectives: list[Objective]) -> None:
        """Join the parts; see `WeightedSumConfig.build`."""
        super().__init__(config.model_copy(update={"objectives": tuple(one.config for one in objectives)}))
        self.objectives = nn.ModuleList(objectives)
        for one in objectives:
            self.obs_shapes |= one.obs_shapes

    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """See `Objective.score`."""
        scores = [
            weight * cast(Objective, one).score(obs, windows)
            for weight, one in zip(self.config.weights, self.objectives, strict=True)
        ]
        return torch.stack(scores).sum(0)
