"""The plans that were sent to a servo loop, and the one that it follows."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

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

    def tree(self) -> dict[str, Any]:
        """Return it as plain numbers and lists, for another process."""
        window, times, points = self.window.tolist(), self.times.tolist(), self.points.tolist()
        return self._asdict() | {"window": window, "times": times, "points": points}

    @classmethod
    def of(cls, tree: dict[str, Any]) -> Self:
        """Return what `tree` wrote."""
        window = torch.tensor(tree["window"], dtype=torch.float32)
        times, points = np.array(tree["times"], np.int64), np.array(tree["points"], np.float64)
        return cls(**tree | {"window": window, "times": times, "points": points})


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

    @property
    def known(self) -> list[Plan]:
        """The plan that is followed and the one that was sent last, if there are such."""
        plans = {plan.seq: plan for plan in (self.followed, self._last) if plan is not None}
        return [plans[seq] for seq in sorted(plans)]

    def inherit(self, plans: Sequence[Plan]) -> None:
        """Go on from what another one knew; which of the plans is followed is heard in the next row."""
        self.followed, self._last = (plans[0] if plans else None), (plans[-1] if plans else None)

    def forget(self) -> None:
        """Begin anew with an epoch: of the plans before it none will be taken."""
        self.followed = self._last = None

    def send(self, plan: Plan) -> None:
        """Remember a plan that was sent."""
        self._last = plan

    def hear(self, row: np.void) -> None:
        """Take a row of the servo loop; see `robopol.real_robot.ticks`."""
        known = {plan.seq: plan for plan in self.known}
        self.followed = known.get(int(row["chunk"]))
        # a tick that began later than the plan was sent has found it in the mailbox, and has taken it or not
        if self._last is not None and int(row["t"]) + int(row["late"]) > self._last.t:
            self._last = None


class Handover(NamedTuple):
    """What the policy that speaks next must know of the one that spoke.

    Attributes:
        epoch: The epoch of the servo loop that it last heard of.
        latencies: How late its last plans came, ns.
        plans: The plan that the arm follows and the one that was sent last, if there are such, by their numbers.
    """

    epoch: int
    latencies: tuple[int, ...]
    plans: tuple[Plan, ...]

    def tree(self) -> dict[str, Any]:
        """Return it as plain numbers and lists, for another process."""
        return {"epoch": self.epoch, "latencies": list(self.latencies), "plans": [plan.tree() for plan in self.plans]}

    @classmethod
    def of(cls, tree: dict[str, Any]) -> Self:
        """Return what `tree` wrote."""
        return cls(tree["epoch"], tuple(tree["latencies"]), tuple(Plan.of(plan) for plan in tree["plans"]))
