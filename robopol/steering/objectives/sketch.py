"""Follow a line that the user drew (the sketch of ITPS; Wang et al. 2025)."""

from typing import Annotated, Literal

import torch
from pydantic import AfterValidator
from pydantic import Field as Bound
from torch import Tensor

from robopol.errors import ConfigError
from robopol.policies import Policy
from robopol.steering.objectives.path_objective import PathObjective, PathObjectiveConfig, check_axes
from robopol.steering.objectives.point import Number


def _alike(points: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    if len({len(point) for point in points}) != 1:
        raise ValueError("the points of a line have as many numbers each")
    return points


Line = Annotated[tuple[tuple[Number, ...], ...], Bound(min_length=1), AfterValidator(_alike)]
"""Field of a config: a polyline, (L, D) m."""


class SketchConfig(PathObjectiveConfig):
    """Minus the sum over the steps of the distance to a line, m.

    Attributes:
        points: The line, (L, D) m.
        pace: ``given``: the plan is to be all of the line, step k at its k-th point; the points are taken at equal
            distances of their number, as in ITPS, so that where they are drawn close together it is slow. ``free``:
            each step is to be anywhere on the line, for plans that are only a part of the way.
    """

    kind: Literal["sketch"] = "sketch"
    points: Line
    pace: Literal["given", "free"] = "given"

    def build(self, policy: Policy) -> "Sketch":
        """See `ObjectiveConfig.build`."""
        track = self.track(policy.spec, len(self.points[0]))
        check_axes(track, "each point of the sketch", len(self.points[0]))
        if self.pace == "free" and len(self.points) < 2:
            raise ConfigError(
                "a line to be followed at any pace has 2 points or more; near one point is kept by the objective point"
            )
        return Sketch(self, track)


class Sketch(PathObjective):
    """See `SketchConfig`."""

    config: SketchConfig

    def judge(self, path: Tensor) -> Tensor:
        """See `PathObjective.judge`."""
        line = path.new_tensor(self.config.points)
        if self.config.pace == "given":
            return -torch.linalg.vector_norm(path - resampled(line, path.shape[-2]), dim=-1).sum(-1)
        return -to_line(path, line).sum(-1)


def resampled(points: Tensor, steps: int) -> Tensor:
    """Return points (L, D) at ``steps`` equal distances of their number, in between on straight lines, (steps, D).

    The first and the last are those of the sketch exactly. (ITPS takes the nearest earlier point instead.)
    """
    at = torch.linspace(0, len(points) - 1, steps, dtype=points.dtype, device=points.device)
    at[-1:] = len(points) - 1  # also for one step, whose place is the end
    before = at.floor().long()
    after = (before + 1).clamp(max=len(points) - 1)
    return points[before].lerp(points[after], (at - before)[:, None])


def to_line(path: Tensor, line: Tensor) -> Tensor:
    """Return the distance (...) of positions (..., D) to the nearest point of a polyline (L, D)."""
    begin, along = line[:-1], line.diff(dim=0)
    length = along.square().sum(-1).clamp(min=1e-12)
    offset = path[..., None, :] - begin  # (..., L - 1, D)
    share = ((offset * along).sum(-1) / length).clamp(0, 1)
    return torch.linalg.vector_norm(offset - share[..., None] * along, dim=-1).amin(-1)
