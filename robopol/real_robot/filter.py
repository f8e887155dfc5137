"""From a reference to a command: clamped, kept inside the workspace and apart from obstacles, limited."""

from enum import IntFlag
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopol.real_robot.events import Code
from robopol.real_robot.geometry import Clearance, Geometry
from robopol.real_robot.limiter import Limiter, within

Vector = NDArray[np.float64]

LEAST_SHARE = 0.1
"""Share of the speed limits that is left at the distance where the arm stops, so that it can also leave."""
BRAKING_STEP = 0.1
"""Distance at which the way of braking is looked at, rad of the joint that moves most."""
_SLACK = 1e-6


class Mark(IntFlag):
    """What the filter did to a reference."""

    CLAMPED = 1
    SLOWED = 2
    HELD = 4


class Finding(NamedTuple):
    """What the filter found, an event to be."""

    code: Code
    numbers: tuple[float, ...] = ()


class Filtered(NamedTuple):
    """What became of a reference.

    Attributes:
        marks: What was done to it.
        findings: What is new.
    """

    marks: Mark
    findings: list[Finding]


class Filter:
    """Steps 5 to 8, in this order: joint limits, workspace, distances, limiter. The limiter's state is the command.

    Workspace and distances are kept by one invariant: from wherever the arm is, the way of braking is free. A step that
    would end it is not taken, and the arm brakes instead, on the way that was free a tick before. A constraint that is
    violated already, as by an arm that was moved by hand, allows every step that makes it better; what was won so is
    not given back, or else the arm would creep out by less than rounding a tick.

    Attributes:
        limiter: Commanded positions and speeds.
    """

    def __init__(self, limiter: Limiter, geometry: Geometry | None) -> None:
        """Filter for one arm; `reset` says where it is."""
        self.limiter, self.geometry = limiter, geometry
        self._here: Clearance | None = None
        self._best: Clearance | None = None  # since a violation began: at most what is demanded
        self._marks = Mark(0)

    def reset(self, q: Vector) -> None:
        """Stand still at ``q``, (n,) rad."""
        self.limiter.reset(q)
        self._here = self._best = None
        if self.geometry is not None:
            self._be_at(self.geometry.look(q))
        self._marks = Mark(0)

    def follow(self, q: Vector, dq: Vector) -> Filtered:
        """Move the command by one tick towards a reference, as far as all is well.

        Args:
            q: Reference one tick from now (n,), rad.
            dq: Its speed (n,), rad/s.

        Returns:
            What was done. With `Mark.HELD` it brakes instead, and should go on to brake.
        """
        findings: list[Finding] = []
        marks, limiter = Mark(0), self.limiter
        strange = np.sum(~np.isfinite(q)) + np.sum(~np.isfinite(dq))
        if strange:
            self.brake()
            return Filtered(Mark.HELD, [Finding(Code.PLAN_NOT_FINITE, (float(strange),))])
        inside = within(q, limiter.low, limiter.high)
        if np.any(inside != q):
            marks |= Mark.CLAMPED
            joint = int(np.argmax(np.abs(q - inside)))
            if Mark.CLAMPED not in self._marks:
                findings.append(Finding(Code.POSITION_CLAMPED, (joint, q[joint], inside[joint])))
            dq = np.where(inside == q, dq, 0.0)
        share = self._share()
        if share < 1:
            marks |= Mark.SLOWED
            if Mark.SLOWED not in self._marks:
                findings.append(Finding(Code.SLOWED, (self._nearest(), share)))
        step = limiter.towards(inside, dq, share)
        wrong, there = self._why_not(*step)
        if wrong is None:
            self._take(*step, there)
        else:
            marks |= Mark.HELD
            findings.append(wrong)
            self._take(*limiter.braking())
        self._marks = marks
        return Filtered(marks, findings)

    def brake(self) -> None:
        """Move the command by one tick of braking; at rest it stays."""
        self._take(*self.limiter.braking())
        self._marks = Mark(0)

    def _take(self, q: Vector, dq: Vector, there: Clearance | None = None) -> None:
        """Be where a step ends, whose clearance may be known already."""
        moves = bool(np.any(q != self.limiter.q))
        self.limiter.move(q, dq)
        if self.geometry is not None and moves:
            self._be_at(there or self.geometry.look(q))

    def _be_at(self, here: Clearance) -> None:
        """Note the clearance of where it is."""
        assert self.geometry is not None
        best = here if self._best is None else Clearance(*map(np.maximum, here, self._best))
        self._here = here
        self._best = Clearance(np.minimum(best.margins, 0.0), np.minimum(best.distances, self.geometry.config.stop))

    def _nearest(self) -> float:
        return float(np.min(self._here.distances, initial=np.inf)) if self._here is not None else np.inf

    def _share(self) -> float:
        """Return the share of the speed limits that the nearest distance allows."""
        if self.geometry is None:
            return 1.0
        config = self.geometry.config
        share = (self._nearest() - config.stop) / (config.slow - config.stop)
        return float(np.clip(share, LEAST_SHARE, 1.0))

    def _why_not(self, q: Vector, dq: Vector) -> tuple[Finding | None, Clearance | None]:
        """Say what forbids a step, where it ends or where braking leads from there; and the clearance where it ends."""
        geometry, here, best, first = self.geometry, self._here, self._best, None
        if geometry is None or here is None or best is None:
            return None, None
        # one that braking took below the best that it was may only come back
        least = Clearance(*(np.minimum(now, once - _SLACK) for now, once in zip(here, best, strict=True)))
        stop = self.limiter.stopping_point(q, dq)
        pieces = max(1, int(np.ceil(np.max(np.abs(stop - q), initial=0.0) / BRAKING_STEP)))
        places = [q + (stop - q) * (k / pieces) for k in range(pieces + 1)] if np.any(stop != q) else [q]
        for place in places:
            there = geometry.look(place)
            first = first or there
            out = there.margins < least.margins
            if out.any():
                i = int(np.argmin(np.where(out, there.margins, np.inf)))
                return Finding(Code.LEFT_WORKSPACE, (i, there.margins[i])), first
            near = there.distances < least.distances
            if near.any():
                i = int(np.argmin(np.where(near, there.distances, np.inf)))
                a, b = geometry.pairs[i]
                return Finding(Code.TOO_NEAR, (float(a), float(b), there.distances[i])), first
        return None, first
