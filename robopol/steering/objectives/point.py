"""Go to a point (the click of ITPS; Wang et al. 2025)."""

from typing import Annotated, Literal

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.policies import Policy
from robopol.steering.objectives.path_objective import PathObjective, PathObjectiveConfig, check_axes

Number = Annotated[float, Bound(allow_inf_nan=False)]


class PointConfig(PathObjectiveConfig):
    """Minus the distance to a point, m.

    Attributes:
        point: Where, (D,) m.
        when: What of the path is meant: the sum over ``every`` step (in ITPS their mean), the ``last`` step, or the
            ``closest`` one.
    """

    kind: Literal["point"] = "point"
    point: tuple[Number, ...] = Bound(min_length=1)
    when: Literal["every", "last", "closest"] = "every"

    def build(self, policy: Policy) -> "Point":
        """See `ObjectiveConfig.build`."""
        track = self.track(policy.spec, len(self.point))
        check_axes(track, "the point", len(self.point))
        return Point(self, track)


class Point(PathObjective):
    """See `PointConfig`."""

    config: PointConfig

    def judge(self, path: Tensor) -> Tensor:
        """See `PathObjective.judge`."""
        distance = torch.linalg.vector_norm(path - path.new_tensor(self.config.point), dim=-1)
        if self.config.when == "every":
            return -distance.sum(-1)
        return -(distance[..., -1] if self.config.when == "last" else distance.amin(-1))
