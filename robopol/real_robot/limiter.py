"""The last thing that shapes motion: speeds and accelerations within limits, whatever is asked for."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

RESERVE = 0.9
"""Share of the acceleration that braking curves are planned with; the rest is for following them in whole ticks."""
PASS_THROUGH = 1.0
"""A reference is met exactly if its own speed is within so many steps of acceleration of what meeting it takes; with
more than one it would be overshot, as the next step could not fall back to its speed."""


def within(x: Vector, low: Vector, high: Vector) -> Vector:
    """Return what numpy's ``clip`` does, which takes several times as long for a few numbers."""
    held: Vector = np.minimum(np.maximum(x, low), high)
    return held


class Limiter:
    """Follows a reference, joint by joint, as closely as limits of position, speed and acceleration allow.

    Between two ticks a joint moves at a constant speed v, which changes by at most a_max T from tick to tick. A
    reference that respects the limits itself is met in every tick. Another one is approached on the braking curve
    v = sqrt(2 a e + (a T / 2)^2) - a T / 2, the fastest from which a joint still stops within e when its speed falls by
    a T in every tick, on top of the reference's own speed. The same curve keeps each joint from running past its
    position limits, with e less a T^2 / 8, by which a stop in whole ticks may be longer.

    Attributes:
        low: Least positions (n,), rad.
        high: Greatest positions (n,), rad.
        speed: Speed limits (n,), rad/s.
        acceleration: Acceleration limits (n,), rad/s^2.
        period: T, s.
        q: Commanded positions (n,), rad.
        dq: Commanded speeds (n,), rad/s.
    """

    def __init__(self, low: Vector, high: Vector, speed: Vector, acceleration: Vector, period: float) -> None:
        """Limit n joints; `reset` says where they are."""
        self.low, self.high, self.speed, self.acceleration = low, high, speed, acceleration
        self.period = period
        self.q, self.dq = np.zeros_like(low), np.zeros_like(low)
        self._step = acceleration * period
        self._braking = RESERVE * acceleration
        self._half = self._braking * period / 2
        self._twice, self._squared, self._slack = 2 * self._braking, self._half**2, self._braking * period**2 / 8

    def reset(self, q: Vector) -> None:
        """Stand still at ``q``, (n,) rad."""
        self.q, self.dq = q.copy(), np.zeros_like(q)

    def towards(self, q: Vector, dq: Vector, share: float = 1.0) -> tuple[Vector, Vector]:
        """Say where the joints would be one tick later on their way to a reference.

        Args:
            q: Reference at that time (n,), rad.
            dq: Its speed (n,), rad/s.
            share: Part of the speed limits that may be used, 0 to 1.

        Returns:
            Positions and speeds, (n,) each.
        """
        speed, limit = self.speed * share, PASS_THROUGH * self._step
        error = q - self.q
        hit = error / self.period
        met = (np.abs(hit) <= speed) & (np.abs(hit - self.dq) <= self._step) & (np.abs(hit - dq) <= limit)
        wanted = np.where(met, hit, dq + np.sign(error) * self._stoppable(np.abs(error)))
        return self._moved(within(wanted, -speed, speed))

    def braking(self) -> tuple[Vector, Vector]:
        """Say where the joints would be one tick later if they brake along a straight line in joint space."""
        rest = self.time_to_rest(self.dq)
        return self._moved(self.dq * max(0.0, 1.0 - self.period / rest) if rest > 0 else 0.0 * self.dq)

    def stopping_point(self, q: Vector, dq: Vector) -> Vector:
        """Return where joints at ``q`` with speeds ``dq`` come to rest by braking, (n,) rad."""
        inside = within(q + dq * self.time_to_rest(dq) / 2, self.low, self.high)
        stop: Vector = np.where(dq > 0, np.maximum(inside, q), np.minimum(inside, q))
        return np.where(dq == 0, q, stop)

    def time_to_rest(self, dq: Vector) -> float:
        """Return how long braking from speeds ``dq`` takes when the slowest joint sets the pace, s."""
        return float(np.max(np.abs(dq) / self._braking, initial=0.0))

    def move(self, q: Vector, dq: Vector) -> None:
        """Be where `towards` or `braking` said."""
        self.q, self.dq = q, dq

    def _moved(self, wanted: Vector) -> tuple[Vector, Vector]:
        """Take wanted speeds as far as position limits and acceleration allow."""
        up = self._stoppable(np.maximum(0.0, self.high - self.q - self._slack))
        down = self._stoppable(np.maximum(0.0, self.q - self.low - self._slack))
        dq = self.dq + within(within(wanted, -down, up) - self.dq, -self._step, self._step)
        return self.q + dq * self.period, dq

    def _stoppable(self, distance: Vector) -> Vector:
        """Return the greatest speeds from which joints stop within a distance, (n,) each."""
        speed: Vector = np.sqrt(self._twice * distance + self._squared) - self._half
        return speed
