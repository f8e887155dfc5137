"""The plan: a smooth curve through the waypoints that are still to come, which ends at rest by itself."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Times = NDArray[np.int64]


class Plan:
    """A cubic Hermite curve through waypoints of all joints.

    Tangents are those of Fritsch and Carlson (SIAM J. Numer. Anal. 17, 1980): between two waypoints the curve is
    monotone in every joint, so it never swings beyond them. Where a new plan begins, position and speed are those of
    the old one; in this first piece alone it may pass a waypoint, by the way that the old speed takes to turn.

    After the last waypoint all joints brake along a straight line in joint space, the joint that takes longest at its
    full acceleration, and stay at rest. A plan that nobody prolongs therefore ends well.

    Attributes:
        end: When the last waypoint is reached, ns.
        rest: When the plan has come to rest, ns.
    """

    def __init__(self, t: int, q: Vector, dq: Vector, braking: Vector) -> None:
        """Brake from a state and stay.

        Args:
            t: When, ns.
            q: Position there (n,), rad.
            dq: Speed there (n,), rad/s.
            braking: Acceleration with which each joint may brake (n,), rad/s^2.
        """
        self._braking = braking
        self._t: Times
        self._q: Vector
        self._dq: Vector
        self._follow(np.array([t], np.int64), q[None], dq[None])

    def at(self, t: int) -> tuple[Vector, Vector]:
        """Return position and speed (n,) at a time, ns, not before that of the plan's last beginning."""
        i = int(np.searchsorted(self._t, t, side="right")) - 1
        if i >= len(self._t) - 1:
            return self._q[-1].copy(), np.zeros_like(self._q[-1])
        i = max(i, 0)
        length = (int(self._t[i + 1]) - int(self._t[i])) * 1e-9
        u = min(max((t - int(self._t[i])) * 1e-9 / length, 0.0), 1.0)
        start, end, out, into = self._q[i], self._q[i + 1], self._dq[i] * length, self._dq[i + 1] * length
        way = end - start
        # Horner's scheme of start + out u + (3 way - 2 out - into) u^2 + (out + into - 2 way) u^3
        square, cube = 3 * way - 2 * out - into, out + into - 2 * way
        return start + u * (out + u * (square + u * cube)), (out + u * (2 * square + u * 3 * cube)) / length

    def go_on(self, t: int, times: Times, points: Vector) -> None:
        """From ``t`` on, go through new waypoints instead; up to it, nothing changes.

        Args:
            t: When, ns; position and speed there stay what they are.
            times: When the waypoints are to be reached (K,), increasing, later than ``t``.
            points: The waypoints (K, n), rad.
        """
        q, dq = self.at(t)
        knots, points = np.concatenate([[t], times]).astype(np.int64), np.concatenate([q[None], points])
        tangents = monotone_tangents((knots - t).astype(np.float64) * 1e-9, points, dq)
        before = self._t < t
        if before.any():
            # A piece of a cubic is a cubic with the same ends, so the old curve stays as it is up to t.
            knots = np.concatenate([self._t[before], knots])
            points = np.concatenate([self._q[before], points])
            tangents = np.concatenate([self._dq[before], tangents])
        self._follow(knots, points, tangents)

    def forget(self, t: int) -> None:
        """Drop what is over at ``t``, ns."""
        first = max(0, int(np.searchsorted(self._t, t, side="right")) - 1)
        self._t, self._q, self._dq = self._t[first:], self._q[first:], self._dq[first:]

    def _follow(self, t: Times, q: Vector, dq: Vector) -> None:
        """Take knots with their tangents, and let the last one be followed by a braking piece."""
        self.end = int(t[-1])
        time = float(np.max(np.abs(dq[-1]) / self._braking, initial=0.0))
        self.rest = self.end + int(np.ceil(time * 1e9))
        if self.rest > self.end:
            # The way of a constant deceleration is a quadratic, which a cubic Hermite piece reproduces.
            t = np.append(t, self.rest)
            stop = q[-1] + dq[-1] * ((self.rest - self.end) * 1e-9 / 2)
            q, dq = np.concatenate([q, stop[None]]), np.concatenate([dq, np.zeros_like(stop)[None]])
        else:
            dq = np.concatenate([dq[:-1], np.zeros_like(dq[-1:])])
        self._t, self._q, self._dq = t, q, dq


def monotone_tangents(t: Vector, q: Vector, first: Vector) -> Vector:
    """Return tangents with which a cubic Hermite curve is monotone between its knots.

    With slopes d between knots and tangents a d and b d at a piece's ends, a^2 + b^2 <= 9 makes the piece monotone;
    longer tangents are shortened to that circle. The first tangent is given and stays.

    Args:
        t: Knots (K,), s.
        q: Values (K, n).
        first: Tangent at the first knot (n,).

    Returns:
        Tangents (K, n).
    """
    h = np.diff(t)[:, None]
    slope = np.diff(q, axis=0) / h
    tangents = np.empty_like(q)
    tangents[0], tangents[-1] = first, slope[-1]
    if len(t) > 2:
        mean = (h[1:] * slope[:-1] + h[:-1] * slope[1:]) / (h[1:] + h[:-1])
        tangents[1:-1] = np.where(slope[:-1] * slope[1:] > 0, mean, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        out, into = tangents[:-1] / slope, tangents[1:] / slope
        shorter = np.minimum(1.0, 3.0 / np.hypot(out, into))
        # the first piece: its first tangent is what it is, and the second takes what room is left
        room = np.sqrt(np.maximum(0.0, 9.0 - np.square(np.maximum(out[0], 0.0))))
        shorter[0] = np.minimum(1.0, room / np.maximum(into[0], 0.0))
    shorter = np.where(slope == 0, 0.0, np.nan_to_num(shorter, nan=1.0))
    tangents[1:] *= shorter
    tangents[1:-1] *= shorter[1:]
    return tangents
