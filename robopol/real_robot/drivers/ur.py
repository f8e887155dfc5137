"""Arms of Universal Robots (e-Series, CB3), through the package ur-rtde.

The client uploads a program that follows servoj goals. Its watchdog, in the controller, ends the program, which brakes,
when goals stop coming. What the client does not do is done here: it takes joints that are no numbers and sends them; it
goes on saying yes when the controller hangs, when only the timestamp stands still; its calls may block for minutes, and
its constructors, which hold Python's lock, for ever. So a connection is tried by hand first, goals are sent only while
the state is fresh, and calls that wait are made in a thread that is given up. A process that owns this driver must be
one that can be killed, as that of the servo loop is.
"""

import ctypes
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import numpy as np
from pydantic import Field

from robopol.config import Config
from robopol.errors import MissingExtraError, RobotError
from robopol.real_robot.clock import Clock
from robopol.real_robot.driver import DeviceInfo, Driver, Reading, Status, StopLevel, Vector
from robopol.real_robot.drivers import ur_by_hand as by_hand

_VARIABLES = [
    "timestamp",
    "actual_q",
    "actual_qd",
    "actual_current",
    "actual_TCP_force",
    "robot_status_bits",
    "safety_status_bits",
    "runtime_state",
]
_PLAYING = 2
_PROTECTIVE, _EMERGENCY, _FAULT = 1 << 2 | 1 << 10, 7 << 5, 3 << 8
"""Bits of safety_status_bits: protective stop and stopped for safety; emergency stops; violation and fault."""
_SAFEGUARD = 1 << 4
SILENT = 2.0
"""After so long without a state the client is not to be touched any more, s."""
STALE = 0.1
"""Goals are sent only while the last fresh state is younger, s."""


class URConfig(Config):
    """A controller of Universal Robots, in remote control.

    Attributes:
        host: Its address.
        serial: Its serial number; None takes whichever answers.
        low: Lowest joint positions (6,), rad.
        high: Highest joint positions (6,), rad.
        frequency: How often it sends its state, Hz: 500 is the most (125 on CB3).
        lookahead: Of servoj, s: 0.03 is stiff, 0.2 smooth.
        gain: Of servoj.
        watchdog: Least rate of goals, Hz; below it the controller ends the program and brakes. Less than 20 is for
            tests on machines that are busy.
        deceleration: Of a stop, rad/s^2.
        timeout: Longest time that a call takes but for connecting and arming, s.
    """

    kind: Literal["ur"] = "ur"
    host: str
    serial: str | None = None
    low: tuple[float, float, float, float, float, float] = (-6.28, -6.28, -3.14, -6.28, -6.28, -6.28)
    high: tuple[float, float, float, float, float, float] = (6.28, 6.28, 3.14, 6.28, 6.28, 6.28)
    frequency: float = Field(500.0, gt=0, le=500)
    lookahead: float = Field(0.1, ge=0.03, le=0.2)
    gain: float = Field(300.0, ge=100, le=2000)
    watchdog: float = Field(20.0, gt=0)
    deceleration: float = Field(10.0, gt=0)
    timeout: float = Field(0.05, gt=0)

    def build(self, clock: Clock, period: float) -> "URDriver":
        """Return the driver; nothing is opened."""
        return URDriver(self, clock, period)


class URDriver(Driver):
    """See `URConfig`."""

    def __init__(self, config: URConfig, clock: Clock, period: float) -> None:
        """Drive a controller; servoj is given ``period`` for each goal, s: the time until the next."""
        self.config, self.clock, self.period = config, clock, period
        self._receive: Any = None
        self._control: Any = None
        self._armed = False
        self._fresh = self._stamp = 0
        self._lost = False
        self._waiting: threading.Thread | None = None
        try:
            import rtde_control
            import rtde_receive
        except ImportError as error:
            raise MissingExtraError("ur-rtde", "ur", "an arm of Universal Robots") from error
        self._control_class = rtde_control.RTDEControlInterface
        self._receive_class = rtde_receive.RTDEReceiveInterface

    def connect(self) -> DeviceInfo:
        """See `Driver.connect`; no program is uploaded yet."""
        self.close()
        c = self.config
        serial, model = by_hand.ask(c.host, "get serial number"), by_hand.ask(c.host, "get robot model")
        if c.serial is not None and c.serial != serial:
            raise RobotError(f"the controller at {c.host} has serial number {serial}, not {c.serial}")
        if "true" not in by_hand.ask(c.host, "is in remote control"):
            raise RobotError(f"the controller at {c.host} is not in remote control: switch it on the pendant")
        by_hand.try_stream(c.host)
        try:
            self._receive = self._receive_class(c.host, c.frequency, _VARIABLES)
        except Exception as error:
            raise RobotError(f"ur-rtde cannot listen to {c.host}: {error}") from error
        self._fresh, self._stamp, self._lost = self.clock.now(), 0, False
        return DeviceInfo(model, serial, 6, False, 1 / c.watchdog, c.low, c.high)

    def arm(self) -> None:
        """See `Driver.arm`: the program is uploaded, and told to stay where the arm is.

        From here on goals must come as often as the watchdog wants them.
        """
        c, receive = self.config, self._connected()
        self._idle()
        status = self._status(receive)
        if status:
            raise RobotError(f"the controller at {c.host} does not let the arm move: {status!r}")
        by_hand.try_stream(c.host)
        try:
            self._begin_program()
            watched = self._within(5.0, "set the watchdog", lambda: self._control.setWatchdog(c.watchdog))
            here = self._finite(receive.getActualQ(), "positions")
            if not watched or not self._control.servoJ(here.tolist(), 0.0, 0.0, self.period, c.lookahead, c.gain):
                raise RobotError(f"the program at {c.host} does not take goals")
        except RobotError:
            self._release()
            raise
        except Exception as error:
            self._release()
            raise RobotError(f"the program cannot be started at {c.host}: {error}") from error
        self._armed, self._fresh = True, self.clock.now()

    def read(self, out: Reading) -> bool:
        """See `Driver.read`; ``t_device`` is the controller's timestamp."""
        receive = self._connected()
        try:
            for _ in range(2):  # the getters lock one by one: what came while they were asked would be mixed
                stamp = receive.getTimestamp()
                q, dq = receive.getActualQ(), receive.getActualQd()
                current, wrench = receive.getActualCurrent(), receive.getActualTCPForce()
                status = self._status(receive)
                playing = receive.getRuntimeState() == _PLAYING
                if receive.getTimestamp() == stamp:
                    break
        except Exception as error:
            raise RobotError(f"ur-rtde cannot read from {self.config.host}: {error}") from error
        t = round(stamp * 1e9)
        if t <= self._stamp:
            self._lost |= self.clock.now() - self._fresh > SILENT * 1e9
            return False
        out.q[:], out.dq[:] = self._finite(q, "positions"), self._finite(dq, "speeds")
        out.effort[:], out.wrench[:] = self._finite(current, "currents"), self._finite(wrench, "forces")
        self._stamp = t
        out.t_device, out.t_received = t, self.clock.now()
        out.status = status | (Status.POWERED if self._armed and playing else Status(0))
        self._fresh = out.t_received
        return True

    def write(self, q: Vector, gripper: float) -> None:
        """See `Driver.write`: nothing is sent unless the program runs, and its state is fresh."""
        c, receive = self.config, self._connected()
        goal = np.asarray(q, np.float64)
        if goal.shape != (6,):
            raise RobotError(f"a goal has 6 joints, got shape {goal.shape}: nothing was sent")
        wrong = ~((goal >= c.low) & (goal <= c.high))  # also of what is not a number
        if wrong.any():
            i = int(np.argmax(wrong))
            raise RobotError(f"goal {goal[i]} of joint {i} is not within {c.low[i]} to {c.high[i]}: nothing was sent")
        self._idle()
        if not self._armed or self._control is None:
            raise RobotError(f"the arm at {c.host} is not armed: call arm() first")
        if self.clock.now() - self._fresh > STALE * 1e9:
            raise RobotError(f"the state of {c.host} is older than {STALE} s: nothing was sent")
        try:
            ready = receive.getRuntimeState() == _PLAYING and not self._status(receive)
            sent = ready and self._control.servoJ(goal.tolist(), 0.0, 0.0, self.period, c.lookahead, c.gain)
        except Exception as error:
            raise RobotError(f"ur-rtde cannot write to {c.host}: {error}") from error
        if not sent:
            self._armed = False
            raise RobotError(f"the program at {c.host} does not run: nothing was sent, call arm() to go on")

    def feed_watchdog(self) -> None:
        """Does nothing: `write` feeds it."""

    def stop(self, level: StopLevel) -> None:
        """See `Driver.stop`; ABORT is the controller's protective stop, which its operator or dashboard must unlock."""
        if self._receive is None:
            raise RobotError("the arm is not connected: call connect() first")
        follow, self._armed = self._armed and level is not StopLevel.ABORT, False
        control, running, told = self._control, False, False
        with suppress(Exception):  # one that lost its connection is told by hand
            running = control is not None and self._connected().getRuntimeState() == _PLAYING
        if running and self.clock.now() - self._fresh <= STALE * 1e9:
            with suppress(RobotError):
                if level is StopLevel.ABORT:
                    told = self._within(self.config.timeout / 2, "stop", control.triggerProtectiveStop)
                else:
                    told = self._within(
                        self.config.timeout / 2, "stop", lambda: control.servoStop(self.config.deceleration)
                    )
        if not told and not (running and self._waiting is not None):
            by_hand.stop(self.config.host, self.config.deceleration, self.config.timeout / 2)
        self._armed = follow and told

    def close(self) -> None:
        """See `Driver.close`: goals stop coming, so the watchdog ends the program."""
        self._armed = False
        lost = self._silent()
        for client in (self._control, self._receive):
            self._part(client, lost)
        self._control = self._receive = None

    def _release(self) -> None:
        control, self._control = self._control, None
        self._part(control, self._silent())

    def _silent(self) -> bool:
        """Return whether the controller was silent for so long that the client may be at work on it by itself."""
        with suppress(Exception):
            if round(self._receive.getTimestamp() * 1e9) > self._stamp:  # it spoke, and nobody read
                return self._lost
        return self._lost or self.clock.now() - self._fresh > SILENT * 1e9

    def _part(self, client: Any, lost: bool) -> None:
        """Disconnect a client, or, if it lost its controller, leave it as it is to the end of the process.

        After 2.5 s of silence its own thread reconnects, and to disconnect or destroy it meanwhile crashes.
        """
        if client is None:
            return
        with suppress(Exception):
            if not lost and client.isConnected():
                self._within(3.0, "disconnect", client.disconnect)
                return
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))

    def _begin_program(self) -> None:
        """Upload the program and see that it runs, with the client that there is if it is still of use."""
        control = self._control
        if control is not None and not self._lost and control.isConnected():
            with suppress(RobotError):
                self._within(3.0, "take the program", control.reuploadScript)
                end = self.clock.now() + 3_000_000_000
                while self.clock.now() < end:
                    if control.isProgramRunning():
                        return
                    self.clock.sleep_until(self.clock.now() + 2_000_000)
        self._release()
        self._control = self._control_class(self.config.host)

    def _connected(self) -> Any:
        if self._receive is None:
            raise RobotError("the arm is not connected: call connect() first")
        if not self._receive.isConnected():
            raise RobotError(f"the controller at {self.config.host} closed the connection: close and connect again")
        return self._receive

    def _status(self, receive: Any) -> Status:
        """Translate the safety bits."""
        bits = receive.getSafetyStatusBits()
        status = Status(0)
        for mask, meaning in (
            (_PROTECTIVE | _SAFEGUARD, Status.PROTECTIVE_STOP),
            (_EMERGENCY, Status.EMERGENCY_STOP),
            (_FAULT, Status.DEVICE_FAULT),
        ):
            if bits & mask:
                status |= meaning
        return status

    def _finite(self, values: list[float], what: str) -> Vector:
        """Return six numbers; the client hands out whatever came, also nothing."""
        if len(values) != 6 or not all(map(math.isfinite, values)):
            raise RobotError(f"the {what} of {self.config.host} are {values}, not six numbers")
        return np.array(values)

    def _idle(self) -> None:
        """Refuse to go on while a call that was given up still waits inside the client."""
        if self._waiting is not None and self._waiting.is_alive():
            raise RobotError(f"{self.config.host} has not finished {self._waiting.name} yet")
        self._waiting = None

    def _within(self, seconds: float, name: str, call: Callable[[], Any]) -> Any:
        """Make a call that may wait for minutes, and give it up after a time."""
        done: list[Any] = []

        def work() -> None:
            with suppress(Exception):
                done.append(call())

        thread = threading.Thread(target=work, name=f"to {name}", daemon=True)
        thread.start()
        thread.join(seconds)
        if not done:
            self._waiting = thread if thread.is_alive() else None
            raise RobotError(f"{self.config.host} did not {name} within {seconds} s")
        return done[0]
