"""The life of an arm: connected, armed, held, stopped, at fault and reset, as operators and alarms will have it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from robopol.errors import RobotError
from robopol.real_robot.clock import Clock
from robopol.real_robot.driver import FAULTS, Driver, Reading, Status, StopLevel
from robopol.real_robot.events import Code, Event, Severity
from robopol.real_robot.motion import Motion
from robopol.real_robot.outlet import Outlet
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.states import LATCHED, MOVING, WRITING, Command, Machine, State
from robopol.real_robot.watchdogs import Alarm, ArmWatch, Reaction

Vector = NDArray[np.float64]

ARMING_TIME = 2.0
"""Longest time from the arming of a device to its first state with power on, s."""
NEAR = 0.5
"""Share of the greatest tracking error within which an arm must be of its command to be held there after a stop."""
_SEVERITY = {Reaction.HOLD: Severity.WARNING}


class Lifecycle:
    """Owns the arm's state and everything that changes it.

    What it does is done at the time ``now``, and changes the command of the tick at ``t``: the present one, or, where
    the arm was read after that was written, the next.

    Attributes:
        machine: The state.
        motion: Plan, filter and command.
        outlet: Where commands go out.
        watch: What is known of the arm's health.
        reading: The newest state of the arm.
        quitting: Whether the operator said QUIT.
    """

    def __init__(
        self,
        robot: RobotConfig,
        driver: Driver,
        clock: Clock,
        report: Callable[[Event], None],
        complain: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Begin disconnected; ``complain`` is told, in words, why the driver could not do something."""
        self.robot, self.driver, self.clock = robot, driver, clock
        self._report, self._complain = report, complain
        self._words: dict[Code, str] = {}
        self.machine, self.motion, self.outlet = Machine(report), Motion(robot), Outlet(driver, robot)
        self.watch, self.reading = ArmWatch(robot), Reading(len(robot.joints))
        self._ends: tuple[Vector, Vector] | None = None  # lowest and highest goals that the arm takes, if it says so
        self._arming = 0
        self.quitting = False

    def connect(self) -> None:
        """Connect the arm.

        Raises:
            RobotError: If it cannot be, or is not the robot that the configuration describes.
        """
        self._connect_device()
        self.watch.reset(self.clock.now())
        self.machine.enter(State.CONNECTED, self.clock.now())

    def obey(self, number: int, argument: int, now: int, t: int) -> bool:
        """Do what the operator says, if it is possible now.

        Args:
            number: A `Command`.
            argument: Its argument.
            now: The time, ns.
            t: When the tick is due whose command is the next to be written, ns.

        Returns:
            Whether it was done.
        """
        self._words.clear()
        known = number in Command.__members__.values()
        done = known and self._do(Command(number), argument, now, t)
        code, severity = (Code.COMMANDED, Severity.INFO) if done else (Code.COMMAND_REFUSED, Severity.WARNING)
        self.tell(now, code, severity, number, argument if done else self.machine.state)
        return done

    def _do(self, command: Command, argument: int, now: int, t: int) -> bool:
        state = self.machine.state
        if command is Command.QUIT:
            self.quitting = True
            self.stop(now, t)
        elif command is Command.ABORT:
            if state in LATCHED:
                return self._device_stop(now, StopLevel.ABORT)
            self.fault(now, State.FAULT, StopLevel.ABORT)
        elif command is Command.RESET:
            return argument != 0 and self._reset(now)
        elif command is Command.ARM:
            free = state is State.CONNECTED and not self._arming
            return free and not (self.reading.t_received and self._blind(now)) and self._begin_arming(now)
        elif state not in WRITING or state is State.STOPPING or self.quitting:
            return False
        elif command is Command.STOP:
            self.stop(now, t)
        else:
            speaker = {Command.RUN: State.RUNNING, Command.HUMAN: State.HUMAN, Command.HOLD: None}[command]
            if speaker is not state:  # else they are speaking already
                self.hold(now, t)
                self.machine.begin_epoch()
            self.machine.wanted = speaker
        return True

    def react(self, alarm: Alarm, now: int, t: int) -> None:
        """Do what an alarm asks for."""
        code, reaction, numbers = alarm
        self.tell(now, code, _SEVERITY.get(reaction, Severity.STOP), *numbers)
        if reaction is Reaction.HOLD:
            if code is not Code.STATE_STALE:  # the others need the operator's word to go on
                self.machine.wanted = None
                self.machine.begin_epoch()
            self.hold(now, t)
        elif reaction is Reaction.STOP:
            self.stop(now, t)
        else:
            self.fault(now, State.ESTOP if reaction is Reaction.ESTOP else State.FAULT)

    def hold(self, now: int, t: int) -> None:
        """Brake and hold, if it moves."""
        if self.machine.state in MOVING:
            self.machine.enter(State.HOLD, now)
            self.motion.begin(t)

    def stop(self, now: int, t: int) -> None:
        """Brake; `end_stopping` follows at rest."""
        if self.machine.state in WRITING:
            self.machine.enter(State.STOPPING, now)
            self.motion.begin(t)

    def end_stopping(self, now: int) -> None:
        """Stop the device, which is at rest by now, and hold.

        The command stays what it is: the arm, which follows it with a lag, is still on its way there. One that is far
        from it was held back, and is not to be drawn there any longer: a fault.
        """
        if not self._near or not self._device_stop(now, StopLevel.REST):
            self.fault(now, State.FAULT)
        else:
            self.machine.enter(State.ARMED, now)

    def fault(self, now: int, state: State, level: StopLevel = StopLevel.STOP) -> None:
        """Stop the device at once; nothing is written from here on."""
        rests = self.machine.state in WRITING and self.motion.at_rest and self._near and not self.watch.stale
        if level is StopLevel.STOP and rests:
            level = StopLevel.REST  # it has nothing to brake, and would sink if it were to hold where it is
        self._arming = 0
        known = self.machine.state in LATCHED
        if self.machine.state is State.DISCONNECTED:
            return
        self.machine.enter(state, now)
        if not known:
            self._device_stop(now, StopLevel.ABORT if state is State.ESTOP else level)

    def finish_arming(self, now: int, t: int, fresh: bool) -> bool:
        """Hold where the arm is, from the tick at ``t``, ns, on, once it says that it follows.

        Returns:
            Whether it does since now.
        """
        if not self._arming or self.machine.state is not State.CONNECTED:
            return False
        if fresh and self.reading.t_received >= self._arming and self.reading.status & Status.POWERED:
            self._arming = 0
            if self._blind(now):  # it had not been read before it was armed
                self._device_stop(now, StopLevel.STOP)
                return False
            self._stand(t)
            self.machine.enter(State.ARMED, now)
            return True
        if now - self._arming > ARMING_TIME * 1e9:
            self._arming = 0
            self.tell(now, Code.DEVICE_FAILED, Severity.STOP, 1)
        return False

    def tell(self, now: int, code: Code, severity: Severity, *numbers: float) -> None:
        """Report an event."""
        self._report(Event(now, code, severity, tuple(float(number) for number in numbers)))

    def failed(self, now: int, code: Code, severity: Severity, why: RobotError, *numbers: float) -> None:
        """Report that the driver could not do something, and why, unless it said just that since the last command."""
        self.tell(now, code, severity, *numbers)
        if self._words.get(code) != (words := str(why)):
            self._words[code] = words
            self._complain(words)

    def _blind(self, now: int) -> bool:
        """Say whether a limit is set on what the arm does not measure, and report it."""
        found = self.watch.blind(self.reading)
        if found is not None:
            self.tell(now, Code.UNMEASURED, Severity.STOP, *found)
        return found is not None

    def _begin_arming(self, now: int) -> bool:
        try:
            self.driver.arm()
        except RobotError as error:
            self.failed(now, Code.DEVICE_FAILED, Severity.STOP, error, 1)
            return False
        self._arming = self.clock.now()
        self.watch.reset(self._arming)
        return True

    def _reset(self, now: int) -> bool:
        """Leave a latched fault if the arm is well; one that was lost is connected anew."""
        if self.machine.state not in LATCHED:
            return False
        if self.watch.failures or self.watch.age(now) > self.robot.watch.lost:
            self.driver.close()
            try:
                self._connect_device()
                self.driver.read(self.reading)
            except RobotError as error:
                self.failed(now, Code.DEVICE_FAILED, Severity.STOP, error, 0)
                return False
        if self.reading.status & FAULTS:
            return False
        self.watch.reset(self.clock.now())
        self.machine.enter(State.CONNECTED, now)
        return True

    def _connect_device(self) -> None:
        info = self.driver.connect()
        self.robot.check_device(info)
        self._ends = (np.array(info.low), np.array(info.high)) if info.low else None

    def _stand(self, t: int) -> None:
        """Let the command be where the arm is, which is at rest; at its stop it may be a little beyond its goals."""
        q = self.reading.q if self._ends is None else self.reading.q.clip(*self._ends)
        self.motion.reset(q, float(np.nan_to_num(self.reading.gripper)), t)
        self.outlet.reset(q)

    @property
    def _near(self) -> bool:
        """Whether the arm is where it is commanded to be, but for its lag and its load."""
        distance = np.abs(self.reading.q - self.motion.filter.limiter.q).max()
        return bool(distance <= NEAR * self.robot.watch.tracking)

    def _device_stop(self, now: int, level: StopLevel) -> bool:
        try:
            self.outlet.stop(level)
        except RobotError as error:
            self.failed(now, Code.DEVICE_FAILED, Severity.STOP, error, 2)
            return False
        return True
