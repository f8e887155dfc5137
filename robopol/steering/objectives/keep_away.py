"""Keep away from discs and boxes."""

from typing import Literal, Self

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Tensor

from robopol.config import Config
from robopol.policies import Policy
from robopol.steering.objectives.path_objective import PathObjective, PathObjectiveConfig, check_axes
from robopol.steering.objectives.point import Number


class Disc(Config):
    """A disc, or a ball.

    Attributes:
        centre: (D,) m.
        radius: m.
    """

    centre: tuple[Number, ...] = Bound(min_length=1)
    radius: float = Bound(gt=0, allow_inf_nan=False)

    @property
    def axes(self) -> int:
        """D."""
        return len(self.centre)

    def distance(self, points: Tensor) -> Tensor:
        """Return the signed distance (...) of points (..., D), m; inside it is negative."""
        return torch.linalg.vector_norm(points - points.new_tensor(self.centre), dim=-1) - self.radius


class Box(Config):
    """A box along the axes.

    Attributes:
        low: Least corner, (D,) m.
        high: Greatest corner, (D,) m.
    """

    low: tuple[Number, ...] = Bound(min_length=1)
    high: tuple[Number, ...]

    @model_validator(mode="after")
    def _box(self) -> Self:
        if len(self.low) != len(self.high) or any(a >= b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"a box has its least corner first, got low {self.low} and high {self.high}")
        return self

    @property
    def axes(self) -> int:
        """D."""
        return len(self.low)

    def distance(self, points: Tensor) -> Tensor:
        """See `Disc.distance`."""
        low, high = points.new_tensor(self.low), points.new_tensor(self.high)
        beyond = (points - (low + high) / 2).abs() - (high - low) / 2
        return torch.linalg.vector_norm(beyond.clamp(min=0), dim=-1) + beyond.amax(-1).clamp(max=0)


class KeepAwayConfig(PathObjectiveConfig):
    """Minus the sum over steps and shapes of what is missing to a distance, m; farther away nothing pulls.

    Attributes:
        discs: What is kept away from.
        boxes: The same.
        margin: The distance that is kept, m.
    """

    kind: Literal["keep_away"] = "keep_away"
    discs: tuple[Disc, ...] = ()
    boxes: tuple[Box, ...] = ()
    margin: float = Bound(0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.shapes:
            raise ValueError("say what is kept away from, by discs or boxes")
        return self

    @property
    def shapes(self) -> tuple[Disc | Box, ...]:
        """All of them."""
        return (*self.discs, *self.boxes)

    def build(self, policy: Policy) -> "KeepAway":
        """See `ObjectiveConfig.build`."""
        track = self.track(policy.spec, self.shapes[0].axes)
        for shape in self.shapes:
            check_axes(track, str(shape), shape.axes)
        return KeepAway(self, track)


class KeepAway(PathObjective):
    """See `KeepAwayConfig`."""

    config: KeepAwayConfig

    def judge(self, path: Tensor) -> Tensor:
        """See `PathObjective.judge`."""
        distances = torch.stack([shape.distance(path) for shape in self.config.shapes], -1)
        return (distances - self.config.margin).clamp(max=0).sum((-1, -2))
