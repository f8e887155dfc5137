"""What becomes of the running plan when a new chunk comes."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from robopol.config import Config, parse
from robopol.ensembling import weights
from robopol.real_robot.chunk import Chunk, Usable
from robopol.real_robot.plan import Plan
from robopol.registry import lookup

Vector = NDArray[np.float64]
Times = NDArray[np.int64]


class Merged(NamedTuple):
    """Waypoints to go on with, and whether the chunk continued the plan as it was asked to."""

    times: Times
    points: Vector
    continued: bool = True


class Merging(Protocol):
    """A rule; its memory, if it has one, is of one run of plans."""

    def merge(self, plan: Plan, gripper: Plan, chunk: Chunk, usable: Usable) -> Merged:
        """Return the waypoints of all columns that follow the hand-over.

        Args:
            plan: The running plan of the joints.
            gripper: That of the gripper, with one column or none.
            chunk: The new chunk.
            usable: What is of use of it.
        """

    def reset(self) -> None:
        """Forget what came so far: the plan that was made of it is given up."""


def merging_of(tree: Mapping[str, Any]) -> Merging:
    """Return the rule of a tree, as `robopol.execution.ExecutorConfig.merging` says it."""
    rule: Merging = parse(lookup("merging", tree["kind"]), tree).build()
    return rule


class ReplaceConfig(Config):
    """The new chunk replaces whatever the plan holds from the hand-over on."""

    kind: Literal["replace"] = "replace"

    def build(self) -> "Replace":
        """Return the rule."""
        return Replace()


class BlendConfig(Config):
    """Cross-fade from the old plan to the new chunk.

    Attributes:
        waypoints: B, how many of the new waypoints are mixed with the old plan; the k-th, from 1 on, has the weight
            k / (B + 1).
    """

    kind: Literal["blend"] = "blend"
    waypoints: int = Field(2, ge=1)

    def build(self) -> "Blend":
        """Return the rule."""
        return Blend(self.waypoints)


class EnsembleConfig(Config):
    """Average what all chunks say about a time (Zhao et al. 2023, ACT).

    Attributes:
        m: The i-th oldest chunk that reaches to a time, from i = 0 on, weighs exp(-m i) there.
    """

    kind: Literal["ensemble"] = "ensemble"
    m: float = Field(0.01, allow_inf_nan=False)

    def build(self) -> "Ensemble":
        """Return the rule."""
        return Ensemble(self.m)


class ContinueConfig(Config):
    """For chunks made to begin with the d actions of the plan that are executed meanwhile (real-time chunking).

    A chunk with d <= s <= H - d, where s of its H actions are meant to be executed, replaces the plan, unless it came
    later than it was made for; one that cannot fit to the plan is blended in.

    Attributes:
        waypoints: B of the blend.
    """

    kind: Literal["continue"] = "continue"
    waypoints: int = Field(2, ge=1)

    def build(self) -> "Continue":
        """Return the rule."""
        return Continue(self.waypoints)


class Replace:
    """See `ReplaceConfig`."""

    def merge(self, plan: Plan, gripper: Plan, chunk: Chunk, usable: Usable) -> Merged:
        """See `Merging.merge`."""
        return Merged(usable.times, usable.values)

    def reset(self) -> None:
        """See `Merging.reset`."""


class Blend:
    """See `BlendConfig`."""

    def __init__(self, waypoints: int) -> None:
        """Blend over so many waypoints."""
        self.waypoints = waypoints

    def merge(self, plan: Plan, gripper: Plan, chunk: Chunk, usable: Usable) -> Merged:
        """See `Merging.merge`."""
        points = usable.values.copy()
        for k, t in enumerate(usable.times[: self.waypoints].tolist()):
            weight = (k + 1) / (self.waypoints + 1)
            old = np.concatenate([plan.at(t)[0], gripper.at(t)[0]])
            points[k] = weight * points[k] + (1 - weight) * old
        return Merged(usable.times, points)

    def reset(self) -> None:
        """See `Merging.reset`."""


class Continue:
    """See `ContinueConfig`."""

    def __init__(self, waypoints: int) -> None:
        """Blend over so many waypoints what does not continue the plan."""
        self._blend = Blend(waypoints)

    def merge(self, plan: Plan, gripper: Plan, chunk: Chunk, usable: Usable) -> Merged:
        """See `Merging.merge`."""
        over = len(chunk.data) - len(usable.times)
        if over <= chunk.committed <= chunk.executed <= len(chunk.data) - chunk.committed:
            return Merged(usable.times, usable.values)
        return self._blend.merge(plan, gripper, chunk, usable)._replace(continued=False)

    def reset(self) -> None:
        """See `Merging.reset`."""


class Ensemble:
    """See `EnsembleConfig`; what every chunk says about every time of a grid.

    The grid is that of the first chunk. A chunk whose actions lie between its times is read there by linear
    interpolation, within the time that it spans.
    """

    def __init__(self, m: float) -> None:
        """Average with weights exp(-m i)."""
        self.m = m
        self._said: dict[int, list[Vector]] = {}  # oldest chunk first
        self._step = self._origin = 0

    def merge(self, plan: Plan, gripper: Plan, chunk: Chunk, usable: Usable) -> Merged:
        """See `Merging.merge`."""
        if self._step != chunk.step:
            self.reset()
            self._step, self._origin = chunk.step, chunk.t_first
        due = int(usable.times[0])
        self._said = {t: found for t, found in self._said.items() if t >= due}
        start = -((self._origin - due) // self._step)  # the grid's first place at or after `due`
        last = (int(usable.times[-1]) - self._origin) // self._step
        for k in range(start, last + 1):
            t = self._origin + k * self._step
            self._said.setdefault(t, []).append(_between(usable, t))
        if not self._said:  # a single action between two places of the grid
            return Merged(usable.times, usable.values)
        times = sorted(self._said)
        points = [weights(self.m, len(self._said[t])) @ np.stack(self._said[t]) for t in times]
        return Merged(np.array(times, np.int64), np.stack(points))

    def reset(self) -> None:
        """See `Merging.reset`."""
        self._said.clear()
        self._step = self._origin = 0


def _between(usable: Usable, t: int) -> Vector:
    """Return the actions at a time within those of a chunk, (A,)."""
    i = min(int(np.searchsorted(usable.times, t, side="right")) - 1, len(usable.times) - 1)
    start = int(usable.times[i])
    if start == t:
        return usable.values[i]
    part = (t - start) / (int(usable.times[i + 1]) - start)
    return (1 - part) * usable.values[i] + part * usable.values[i + 1]
