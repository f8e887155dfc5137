"""The person's side: read their device; say where the arm is to go, whether the switch is held, what was commanded."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from robopol.real_robot.chunk import Chunk
from robopol.real_robot.clock import Clock, paced
from robopol.real_robot.filter import Mark
from robopol.real_robot.limiter import RESERVE
from robopol.real_robot.operator import Operator
from robopol.real_robot.plan import Plan
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.servo import HUMAN_ID
from robopol.real_robot.states import State

Vector = NDArray[np.float64]

PERIOD = 20_000_000
"""Time between two looks at a device, ns."""
SLACK = 10_000_000
"""Time from a look until the servo loop takes what it led to, beyond that of its ticks, ns."""
AGAIN = 200_000_000
"""Time until an arm that the filter holds, as at the end of its workspace, is led on anew, ns."""
STAY, STILL = 200_000_000, 1e-3
"""For how long an arm stays where it is led to if nothing more is heard, ns; and within which distance it is there."""
_LISTENING = (State.ARMED, State.HOLD, State.HUMAN)


class OperatorLoop:
    """Lets a person's device speak to one servo loop.

    The hand-over needs no motion of its own. Until the arm follows the person, the target is where the arm goes by
    itself, braking from its present speed; from then on it is that, moved by what the hand moved. So the arm neither
    jumps to where a leader stands nor stops first, and what the hand did while the arm could not follow (before the
    hand-over, beyond limits, faster than the arm may) is never caught up with.

    Attributes:
        operator: The device.
    """

    def __init__(
        self,
        robot: RobotConfig,
        operator: Operator,
        clock: Clock,
        ticks: Callable[[], NDArray[np.void]],
        post: Callable[[bytes], None],
        hold: Callable[[int], None],
        order: Callable[[int, int], None],
    ) -> None:
        """Prepare.

        Args:
            robot: The robot.
            operator: The device.
            clock: Time.
            ticks: Returns the rows of the servo loop since the last call.
            post: Sends a packed chunk.
            hold: Says when the deadman's switch was held, ns; 0 says that it was let go.
            order: Says a command and its argument.
        """
        self.robot, self.operator, self._clock = robot, operator, clock
        self._ticks, self._post, self._hold, self._order = ticks, post, hold, order
        n, hand = len(robot.joints), robot.columns - len(robot.joints)
        self._low, self._high = robot.bounds
        grip = [robot.gripper.speed] if robot.gripper else []
        self._speed = np.append(robot.joint("speed") * robot.speed, grip)
        self._braking, self._joints = RESERVE * robot.joint("acceleration"), n
        latency = max(robot.latency, robot.gripper.latency if robot.gripper else 0.0)
        self._ahead = round(latency * 1e9) + 2 * robot.period_ns + SLACK
        self._row: np.void | None = None
        self._epoch, self._seq, self._next = -1, 0, 0
        self._rest = Plan(0, np.zeros(n), np.zeros(n), self._braking)
        self._opening, self._moved = np.zeros(hand), np.zeros(n + hand)

    def run(self, alive: Callable[[], bool]) -> None:
        """Step while ``alive``."""
        for _ in paced(self._clock, PERIOD, alive):
            self.step()

    def step(self) -> None:
        """Look at the device once; does nothing before the servo loop was heard.

        Raises:
            RobotError: If the device is lost.
        """
        rows = self._ticks()
        now = self._clock.now()
        if len(rows):
            self._row = rows[-1].copy()
            if (rows["marks"] & Mark.HELD).any():
                self._next = now + AGAIN
        if (row := self._row) is None:
            return
        t = now + self._ahead
        state, epoch = State(int(row["state"])), int(row["epoch"])
        if state is not State.HUMAN or epoch != self._epoch:
            self._begin(row)
        resting = np.append(self._rest.at(t)[0], self._opening)
        said = self.operator.listen(resting + self._moved)
        self._hold(now if said.held else 0)
        for command, argument in said.orders:
            self._order(command, argument)
        target = self._near(row, t, resting + self._moved + (0.0 if said.move is None else said.move))
        if np.isfinite(target).all():  # what is no number is sent, to be refused and told of, and forgotten
            self._moved = target - resting
        # an order begins a new epoch, of which nothing is known yet
        if state in _LISTENING and not said.orders and (now >= self._next or epoch != self._epoch):
            self._epoch = epoch
            self._seq = max(self._seq + 1, now)
            self._post(Chunk(HUMAN_ID, self._seq, epoch, now, now, t, STAY, self._rows(row, target)).pack())

    def _begin(self, row: np.void) -> None:
        """Let the target be where the arm goes by itself."""
        self._rest = Plan(int(row["t_hold"]), row["command"], row["command_speed"], self._braking)
        self._opening = np.full_like(self._opening, np.nan_to_num(row["opening"]))
        self._moved = np.zeros_like(self._moved)

    def _rows(self, row: np.void, target: Vector) -> Vector:
        """Return the actions of a chunk: one, so that a steady hand is followed steadily; two to stay at a place."""
        still = np.abs(target - self._command(row)).max() < STILL
        return np.stack([target, target]) if still else target[None]

    def _near(self, row: np.void, t: int, target: Vector) -> Vector:
        """Take a target as far as the arm may go until ``t``."""
        command, reach = self._command(row), self._speed * (t - int(row["t_hold"])) * 1e-9
        near: Vector = np.clip(np.clip(target, self._low, self._high), command - reach, command + reach)
        return near

    def _command(self, row: np.void) -> Vector:
        return np.append(row["command"], np.full_like(self._opening, np.nan_to_num(row["opening"])))
