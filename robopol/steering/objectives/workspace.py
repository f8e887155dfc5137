"""Stay within a box (behaviour composition of PoCo; Wang et al. 2024)."""

from typing import Literal, Self

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Tensor

from robopol.policies import Policy
from robopol.steering.objectives.path_objective import PathObjective, PathObjectiveConfig, check_axes
from robopol.steering.objectives.point import Number


class WorkspaceConfig(PathObjectiveConfig):
    """Minus the sum of the squared distances by which the steps are outside a box, m^2.

    PoCo's cost ||min(p - low, 0)||^2 + ||max(p - high, 0)||^2; inside the box nothing pulls.

    Attributes:
        low: Least position along each axis, m; None for any.
        high: Greatest position along each axis, m; None for any.
    """

    kind: Literal["workspace"] = "workspace"
    low: tuple[Number | None, ...] = Bound(min_length=1)
    high: tuple[Number | None, ...] = Bound(min_length=1)

    @model_validator(mode="after")
    def _box(self) -> Self:
        if len(self.low) != len(self.high):
            raise ValueError(f"low has {len(self.low)} numbers, high {len(self.high)}: give one for each axis")
        if any(a is not None and b is not None and a > b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low {self.low} exceeds high {self.high}")
        return self

    def build(self, policy: Policy) -> "Workspace":
        """See `ObjectiveConfig.build`."""
        track = self.track(policy.spec, len(self.low))
        check_axes(track, "each corner of the workspace", len(self.low))
        return Workspace(self, track)


class Workspace(PathObjective):
    """See `WorkspaceConfig`."""

    config: WorkspaceConfig

    def judge(self, path: Tensor) -> Tensor:
        """See `PathObjective.judge`."""
        low = path.new_tensor([-torch.inf if value is None else value for value in self.config.low])
        high = path.new_tensor([torch.inf if value is None else value for value in self.config.high])
        return -((low - path).clamp(min=0).square() + (path - high).clamp(min=0).square()).sum((-1, -2))
