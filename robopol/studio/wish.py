"""What a user draws and sets on the page, as steerings."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from robopol.config import Config
from robopol.steering import BestOfConfig, GuideConfig, InnerStepsConfig
from robopol.steering.objectives import Disc, KeepAwayConfig, Motion, ObjectiveConfig, PointConfig, SketchConfig
from robopol.steering.objectives.point import Number
from robopol.steering.objectives.weighted_sum import WeightedSumConfig

AVOIDING = 3.0
"""Weight of discs beside a point or a line: with 1 the pull of a point behind a disc would just undo its push."""

Place = tuple[Number, Number]


def _in_plane(disc: Disc) -> Disc:
    if disc.axes != 2:
        raise ValueError(f"a disc has a centre of 2 numbers, got {disc.axes}")
    return disc


class Wish(Config):
    """What plans should do; all that is drawn counts.

    Attributes:
        point: Where to go, m; None is nowhere.
        line: What to follow, m: 2 points or more, or none.
        discs: What to keep away from, m.
        strength: Scale of guidance; 0 does not guide.
        proposals: Of how many plans the best is taken; 1 does not choose.
        inner_steps: How often each step of a guided walk is taken.
    """

    point: Place | None = None
    line: tuple[Place, ...] = Field((), max_length=64)
    discs: tuple[Annotated[Disc, AfterValidator(_in_plane)], ...] = Field((), max_length=16)
    strength: float = Field(10.0, ge=0, le=1000)
    proposals: int = Field(1, ge=1, le=64)
    inner_steps: int = Field(4, ge=1, le=16)

    def objective(self, motion: Motion | None) -> ObjectiveConfig | None:
        """Return what plans are judged by, None if nothing is drawn.

        Args:
            motion: How actions become positions; None where that is known without a word.
        """
        parts: list[ObjectiveConfig] = []
        if self.point is not None:
            parts.append(PointConfig(point=self.point, motion=motion))
        if self.line:
            parts.append(SketchConfig(points=self.line, pace="free", motion=motion))
        if self.discs:
            parts.append(KeepAwayConfig(discs=self.discs, motion=motion))
        if len(parts) < 2:
            return parts[0] if parts else None
        weights = tuple(AVOIDING if isinstance(part, KeepAwayConfig) else 1.0 for part in parts)
        return WeightedSumConfig(objectives=tuple(parts), weights=weights)

    def steerings(self, motion: Motion | None) -> tuple[Any, ...]:
        """Return the steerings that it asks for, in the order in which they act; none leaves the policy as it is."""
        objective, asked = self.objective(motion), list[Any]()
        if objective is None:
            return ()
        if self.strength > 0:
            asked.append(GuideConfig(objective=objective, scale=self.strength))
            if self.inner_steps > 1:
                asked.append(InnerStepsConfig(count=self.inner_steps))
        if self.proposals > 1:
            asked.append(BestOfConfig(objective=objective, n=self.proposals))
        return tuple(asked)
