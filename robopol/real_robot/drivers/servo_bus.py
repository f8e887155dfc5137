"""Arms made of servos on one serial bus: what their drivers have in common, whoever made the servos."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import Field

from robopol.config import Config
from robopol.errors import RobopolError, RobotError
from robopol.real_robot.clock import Clock
from robopol.real_robot.driver import FAULTS, DeviceInfo, Driver, Reading, Status, StopLevel, Vector
from robopol.real_robot.drivers.calibration import Calibration, Ticks
from robopol.real_robot.drivers.line import Line, SerialLine, port_handler

T = TypeVar("T")

MAX_FAILURES = 5
"""After so many failed reads or writes in a row the arm is stopped."""

SETUP = 0.1
"""Time for one exchange, tried twice, while connecting and arming, s."""
OWED = 1.0
"""For so long an answer that did not come is expected to come still, s."""


class Answer(NamedTuple):
    """A sound status packet.

    Attributes:
        id: Of the servo.
        error: Its error byte.
        data: What was asked for.
    """

    id: int
    error: int
    data: bytes


class ServoBusConfig(Config):
    """What every arm made of servos needs.

    Attributes:
        port: Serial device, or a URL of pyserial's.
        calibration: The arm's calibration file, see `robopol.real_robot.drivers.calibration`.
        baud: Bits a second.
        timeout: Longest time that a read or write takes, s; a read that failed is tried again once within it.
        max_speed: Speed limit that is set in the servos, rad/s.
        max_accel: Acceleration limit that is set in the servos, rad/s^2.
    """

    port: str
    calibration: str
    baud: int = Field(1_000_000, gt=0)
    timeout: float = Field(0.008, gt=0)
    max_speed: float = Field(gt=0)
    max_accel: float = Field(gt=0)


class ServoBusDriver(Driver):
    """Talks to all servos of an arm through the vendor's packet handler.

    Attributes:
        calibration: The arm's, once connected.
        retries: Reads that succeeded only when tried again.
        failures: Reads and writes that failed, in a row up to now.
    """

    def __init__(self, config: Any, clock: Clock, open_line: Callable[..., Line] = SerialLine) -> None:
        """Note what to connect to; nothing is opened.

        Args:
            config: A `ServoBusConfig`.
            clock: Of timeouts and timestamps.
            open_line: Called as `SerialLine` is; a lock-step emulator comes in here.
        """
        self.config, self.clock, self._open_line = config, clock, open_line
        self.calibration: Calibration
        self._port: Any = None
        self.retries = self.failures = 0
        self._armed = False
        self._goals: Ticks | None = None
        self._deadline = 0
        self._turn, self._owed = 0, dict[int, int]()
        self._handler, self._vendor = self._client()

    @abstractmethod
    def _client(self) -> tuple[Any, type]:
        """Return the vendor's packet handler and class of port handlers."""

    @abstractmethod
    def _receive(self, what: str) -> Answer:
        """Receive one status packet; raises `RobotError` if it is not sound or none comes before the deadline."""

    @abstractmethod
    def _check(self, servo: int, offset: int) -> str:
        """Check one servo's model, mode and homing offset; return what it is."""

    @abstractmethod
    def _enable(self, goals: Ticks) -> None:
        """Set limits, write goals, switch torque on."""

    @abstractmethod
    def _disable(self) -> None:
        """Switch torque off."""

    @abstractmethod
    def _state(self, out: Reading) -> bool:
        """Ask all servos once, fill in ``out`` but for ``t_received``, and return whether it is new."""

    @abstractmethod
    def _positions(self) -> Ticks:
        """Ask all servos for their positions, in the order of the calibration's ids."""

    @abstractmethod
    def _send_goals(self, goals: Ticks) -> None:
        """Broadcast a goal to every servo."""

    @property
    @abstractmethod
    def _watchdog(self) -> float:
        """Seconds after which the servos stop by themselves; 0 never."""

    def connect(self) -> DeviceInfo:
        """See `Driver.connect`."""
        self.close()
        self.calibration = Calibration.load(Path(self.config.calibration))
        try:
            line = self._open_line(self.config.port, self.config.baud, self.config.timeout, self.clock)
        except (OSError, ValueError) as error:
            raise RobotError(f"the bus {self.config.port} cannot be opened: {error}") from error
        self._port = port_handler(self._vendor, line, self.clock)
        self.failures, self._armed, self._goals = 0, False, None
        try:
            ids, offsets = self.calibration.ids, self.calibration.offsets
            models = [self._check(servo, offset) for servo, offset in zip(ids, offsets, strict=True)]
        except RobotError:
            self.close()
            raise
        gripper = self.calibration.gripper is not None
        joints = len(self.calibration.joints)
        low, high = (tuple(end.tolist()) for end in self.calibration.limits())
        model = ", ".join(dict.fromkeys(models))
        return DeviceInfo(model, self.calibration.name, joints, gripper, self._watchdog, low, high)

    def arm(self) -> None:
        """See `Driver.arm`: the goals are first set to where the servos are, and inside the limits."""
        here = self._try(self._positions, "positions", seconds=SETUP)
        q, gripper = self.calibration.to_angles(here)
        low, high = self.calibration.limits()
        slack = 0.02  # a servo that hangs on its stop is a little beyond
        if ((q < low - slack) | (q > high + slack)).any():
            raise RobotError(f"{self.calibration.name} is at {np.round(q, 3)} rad, outside its limits: move it by hand")
        goals = self.calibration.to_ticks(np.clip(q, low, high), float(np.clip(gripper, 0, 1)))
        self._enable(goals)
        self._armed, self.failures, self._goals = True, 0, goals

    def read(self, out: Reading) -> bool:
        """See `Driver.read`; ``t_device`` is when the servos were asked unless they have a clock."""
        new = self._counted(lambda: self._state(out), "state", tries=2)
        self.failures = 0  # only an answer says that the bus works: goals are not acknowledged
        if not new:
            return False
        out.t_received = self.clock.now()
        if not self._armed:
            out.status &= ~Status.POWERED
        return True

    def write(self, q: Vector, gripper: float) -> None:
        """See `Driver.write`; before `arm`, and after an ABORT or too many failures, nothing is sent."""
        goals = self.calibration.to_ticks(q, gripper)
        if not self._armed:
            raise RobotError(f"{self.calibration.name} is not armed: call arm() first")
        self._counted(lambda: self._send_goals(goals), "goals", tries=1)
        self._goals = goals

    def feed_watchdog(self) -> None:
        """Does nothing: every packet feeds it, where there is one."""

    def stop(self, level: StopLevel) -> None:
        """See `Driver.stop`; after an ABORT `arm` must be called again.

        At rest the last goals are sent once more: servos hold a load a little below them, and goals that are where they
        are would let it sink. What moves or is held back gets its position for a goal.
        """
        if self._port is None:
            raise RobotError("the arm is not connected: call connect() first")
        follow, self._armed = self._armed and level is not StopLevel.ABORT, False
        if level is not StopLevel.REST or self._goals is None:
            low, high = self.calibration.limits()
            q, gripper = self.calibration.to_angles(self._try(self._positions, "positions"))
            self._goals = self.calibration.to_ticks(np.clip(q, low, high), float(np.clip(gripper, 0, 1)))
        goals = self._goals
        self._exchange(lambda: self._send_goals(goals), "goals", self.config.timeout)
        self._armed = follow

    def relax(self) -> None:
        """See `Driver.relax`: the servos' torque is switched off."""
        self._armed = False
        self._disable()

    def close(self) -> None:
        """See `Driver.close`; the servos keep their torque and hold."""
        self._armed = False
        port, self._port = self._port, None
        if port is not None:
            with suppress(Exception):  # an unplugged one cannot be closed either
                port.line.close()

    def _counted(self, ask: Callable[[], T], what: str, tries: int) -> T:
        """Do an exchange; after `MAX_FAILURES` in a row send no more goals, so that the servos hold their last ones."""
        try:
            return self._try(ask, what, tries)
        except RobotError as error:
            self.failures += 1
            if self.failures < MAX_FAILURES or not self._armed:
                raise
            self._armed = False
            raise RobotError(
                f"{error}; {self.failures} failures in a row: no more is sent until arm() is called"
            ) from error

    def _try(self, ask: Callable[[], T], what: str, tries: int = 2, seconds: float | None = None) -> T:
        """Do an exchange, with ``seconds`` (the driver's timeout) for two tries."""
        seconds = seconds or self.config.timeout
        self._deadline = self.clock.now() + round(seconds * 1e9)
        for attempt in range(tries):
            try:
                done = self._exchange(ask, what, seconds / 2)
            except RobotError:
                if attempt + 1 == tries:
                    raise
            else:
                self.retries += attempt
                return done
        raise AssertionError("unreachable")

    def _exchange(self, ask: Callable[[], T], what: str, seconds: float) -> T:
        """Run one exchange; whatever goes wrong in it is a `RobotError`."""
        if self._port is None:
            raise RobotError("the arm is not connected: call connect() first")
        self._port.until = self.clock.now() + round(seconds * 1e9)
        self._port.is_using = False  # the vendors leave it set when an exception passes through
        try:
            return ask()
        except RobopolError:
            raise
        except Exception as error:  # OSError, termios.error, IndexError: they know no single kind
            raise RobotError(f"{what}: the bus {self.config.port} failed: {error!r}") from error

    def _sound(self, result: int, what: str) -> None:
        """Raise what a result code of the vendor's says, unless it is success."""
        if result != 0:
            raise RobotError(f"{what}: {self._handler.getTxRxResult(result) or result}")

    def _ask_all(
        self, ids: list[int], start: int, lengths: range, send: Callable[[int, int], int], what: str = "question"
    ) -> list[Answer]:
        """Read registers of servos.

        The protocols number no packets. An answer to an earlier question is told by its length: questions ask for
        different lengths in turn, and a length whose answers did not all come is not asked for again for `OWED`
        seconds, unless all are. What has another length or comes from another servo is passed over.

        Args:
            ids: Of the servos.
            start: First register.
            lengths: How many bytes: from what is needed on.
            send: Sends the question for (start, length), and returns the vendor's result code.
            what: The question, for what goes wrong.

        Returns:
            One answer a servo, in the order of ``ids``.
        """
        now = self.clock.now()
        self._turn += 1
        turn = [lengths[(self._turn + i) % len(lengths)] for i in range(len(lengths))]
        clean = [n for n in turn if now - self._owed.get(n, now - round(OWED * 1e9)) >= OWED * 1e9]
        length = clean[0] if clean else min(turn, key=lambda n: self._owed[n])
        self._owed[length] = now
        self._sound(send(start, length), what)
        self._port.is_using = False
        found: dict[int, Answer] = {}
        while len(found) < len(ids):
            answer = self._receive(what)
            if answer.id in ids and answer.id not in found and len(answer.data) == length:
                found[answer.id] = answer
        del self._owed[length]
        return [found[servo] for servo in ids]

    def _register(self, servo: int, address: int, length: int) -> int:
        """Read a register of one servo, as an unsigned number; tried again once.

        The vendors' own ``readTxRx`` would take a shorter answer to an earlier question, and read on into its checksum.
        """

        def ask() -> int:
            (answer,) = self._ask_all(
                [servo],
                address,
                range(length, length + 8),
                lambda start, n: self._handler.readTx(self._port, servo, start, n),
                f"servo {servo}, register {address}",
            )
            return int.from_bytes(answer.data[:length], "little")

        return self._try(ask, f"servo {servo}", seconds=SETUP)

    def _set(self, servo: int, address: int, length: int, value: int) -> None:
        """Write a register of one servo, and see that it was taken."""
        data = list(int(value).to_bytes(length, "little"))

        def ask() -> None:
            result, error = self._handler.writeTxRx(self._port, servo, address, length, data)
            self._sound(result, f"servo {servo}, register {address}")
            if error:
                raise RobotError(f"servo {servo}, register {address} := {value}: error {error:#04x}")

        self._try(ask, f"servo {servo}", seconds=SETUP)
        if (now := self._register(servo, address, length)) != value:
            raise RobotError(f"servo {servo}: register {address} was set to {value} and is {now}")


def worst(bits: list[Status]) -> Status:
    """Join the status of servos: any fault counts, and all must be powered."""
    faults = Status(0)
    for own in bits:
        faults |= own & FAULTS
    return faults | (Status.POWERED if all(Status.POWERED in own for own in bits) else Status(0))
