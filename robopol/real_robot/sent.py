"""The plans that were sent to a servo loop, and the one that it follows."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray


class Plan(NamedTuple):
    """A plan that was sent.

    Attributes:
        seq: Number of its chunk.
        t: When it was sent, ns.
        window: Its actions (Tp, A) in the policy's space, from the time of the oldest observation on.
        asked: The time of the observation that they belong to, ns; later than that of the one that was made, by as much
            as the arm waited at rest for the plan.
        times: When its waypoints are to hold (H,), ns.
        points: The waypoints (H, n) or (H, n + 1).
    """

    seq: int
    t: int
    window: torch.Tensor
    asked: int
    times: NDArray[np.int64]
    points: NDArray[np.float64]

    def at(self, times: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return where it leads to at some times (K,), (K, n) or (K, n + 1); its ends hold beyond them."""
        return np.stack([np.interp(times, self.times, column) for column in self.points.T], axis=1)


class Sent:
    """Knows what became of a plan by the rows of the servo loop alone: it may be refused, and it may be given up.

    Attributes:
        followed: The plan that the arm follows, as far as it is known; None if there is none.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.followed: Plan | None = None
        self._last: Plan | None = None

    @property
    def undecided(self) -> bool:
        """Whether it is not known yet what became of the last plan that was sent."""
        return self._last is not None

    def forget(self) -> None:
        """Begin anew with an epoch: of the plans before it none will be taken."""
        self.followed = self._last = None

    def send(self, plan: Plan) -> None:
        """Remember a plan that was sent."""
        self._last = plan

    def hear(self, row: np.void) -> None:
        """Take a row of the servo loop; see `robopol.real_robot.ticks`."""
        known = {plan.seq: plan for plan in (self.followed, self._last) if plan is not None}
        self.followed = known.get(int(row["chunk"]))
        # a tick that began later than the plan was sent has found it in the mailbox, and has taken it or not
        if self._last is not None and int(row["t"]) + int(row["late"]) > self._last.t:
            self._last = None
