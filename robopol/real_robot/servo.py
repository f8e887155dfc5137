"""The servo loop: one tick after the other, each of which listens, moves by one period, writes and then reads.

A goal leaves when its tick is due, whatever the arm took to answer within the period before; it is read later: what
is made of it at once is taken in the next tick. An answer to what happened at the arm is thus on the wire after nine
tenths of a period in the median. It would be one and a half if the arm were read before the goal leaves, as the chunk
would have to wait for the tick after.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robopol.errors import MessageError, RobotError
from robopol.real_robot.chunk import Chunk, Refusal, Rejection
from robopol.real_robot.clock import Clock
from robopol.real_robot.driver import Driver, Reading
from robopol.real_robot.events import Code, Event, Severity
from robopol.real_robot.filter import Mark
from robopol.real_robot.lifecycle import Lifecycle
from robopol.real_robot.merging import Merging, Replace
from robopol.real_robot.outlet import CommandRefused
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.states import LATCHED, MOVING, WRITING, State
from robopol.real_robot.ticks import Source, new_tick
from robopol.real_robot.watchdogs import Alarm, LoopWatch, Reaction

READ_AT = 0.6
"""Share of the period after which an arm is read: what is left is for its answer, and for who answers it at once."""
HUMAN_ID = b"human".ljust(16, b"\0")
"""Id of the chunks that a human's device makes."""


class Mailbox(Protocol):
    """Where chunks come from."""

    def take(self) -> bytes | None:
        """Return the newest packed chunk, once; None if there is no new one."""


class Desk(Protocol):
    """Where commands come from."""

    def commands(self) -> Iterable[tuple[int, int]]:
        """Return the commands since the last call, each with its argument."""

    def held(self) -> int:
        """Return when the deadman's switch was last known to be held, ns."""

    def attended(self) -> int:
        """Return when whoever passes on what is said was last known to be there, ns."""


class Servo:
    """The servo loop of one arm.

    Attributes:
        life: The arm's state and what changes it.
        row: What the last tick left behind; see `robopol.real_robot.ticks`.
        done: Whether the loop has ended.
    """

    def __init__(
        self,
        robot: RobotConfig,
        driver: Driver,
        clock: Clock,
        operator: Desk,
        mailboxes: Mapping[State, Mailbox],
        policy: bytes,
        report: Callable[[Event], None],
        publish: Callable[[NDArray[np.void]], None],
        successor: Mailbox | None = None,
        merging: Merging | None = None,
        complain: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Make the loop; nothing is connected yet.

        Args:
            robot: The robot.
            driver: Its driver.
            clock: Time.
            operator: Who commands.
            mailboxes: `State.RUNNING` -> chunks of the policy, `State.HUMAN` -> those of the human.
            policy: Id of the policy whose chunks are taken.
            report: Told of every event.
            publish: Given the row of every tick, which is used again.
            successor: Ids of policies that may take the place of the one that speaks, each from its first chunk that is
                taken on; None if there will be none.
            merging: What a chunk of the policy does to its plan; None replaces it. A human's always does.
            complain: Told, in words, why the driver could not do something; it must not wait for anybody.
        """
        self.robot, self.clock = robot, clock
        self.life = Lifecycle(robot, driver, clock, report, complain)
        self._driver, self._operator, self._mailboxes, self._publish = driver, operator, mailboxes, publish
        self._loop = LoopWatch(robot)
        self._gates = {State.RUNNING: robot.make_gate(), State.HUMAN: robot.make_gate()}
        self._gates[State.RUNNING].policies, self._gates[State.HUMAN].policies = {policy}, {HUMAN_ID}
        self._policy, self._successor = policy, successor
        self._merging = {State.RUNNING: merging or Replace(), State.HUMAN: Replace()}
        self._read_at = round(READ_AT * robot.period_ns)
        self.row, self._next = new_tick(len(robot.joints)), Reading(len(robot.joints))
        self._rejections = self._write_failures = self._heard = 0
        self._marks, self.done = Mark(0), False
        self._taken = 0  # number of the chunk that the plan was last made of

    def connect(self) -> None:
        """Connect the arm; see `Lifecycle.connect`."""
        self.life.connect()

    def run(self) -> None:
        """Tick on an absolute schedule until an operator says QUIT; late ticks are skipped, never made up for."""
        period = self.robot.period_ns
        t = self.clock.now() + period
        while not self.done:
            self.clock.sleep_until(t)
            skipped = max(0, (self.clock.now() - t) // period)
            t += skipped * period
            self.tick(t, skipped)
            t += period

    def tick(self, t: int, skipped: int = 0) -> None:
        """Do everything once; returns when the arm was read.

        Args:
            t: When this tick was due, ns.
            skipped: How many ticks before it were skipped.
        """
        if self.life.machine.state in WRITING and self.life.watch.overdue(self.clock.now()):
            self._look(t)  # after a gap, nothing is written by what was true before it
        written = self._act(t, skipped)
        self.clock.doze_until(t + self._read_at)
        well = self._look(t + self.robot.period_ns)
        self._publish(self.row)
        if well and written and self.life.machine.state in WRITING:
            self._driver.feed_watchdog()

    def _act(self, t: int, skipped: int) -> bool:
        """Do what the operator says, take what the policy or the human says, and write; return whether it was sent."""
        now, life = self.clock.now(), self.life
        if skipped:
            life.tell(now, Code.DEADLINE_MISSED, Severity.WARNING, (now - t) * 1e-9, skipped)
        for alarm in self._loop.tick(skipped):
            life.react(alarm, now, t)
        for number, argument in self._operator.commands():
            if life.obey(number, argument, now, t):
                self._rejections, self._heard = 0, now
        self._look_at_switch(now, t)
        self._listen(now, t)
        self._move(now, t)
        self.done = life.quitting and life.machine.state not in (State.STOPPING, State.HOLD, *MOVING)
        written = life.machine.state in WRITING and not self.done and self._write(now)
        row = self.row[0]
        row["t"], row["late"], row["t_hold"], row["written"] = t, now - t, life.motion.holds_at(t), written
        self._note_command()
        return written

    def _look(self, t: int) -> bool:
        """Read the arm, and react to what it says, with the tick at ``t``, ns, if that takes a command.

        Returns:
            Whether it answered.
        """
        now, life = self.clock.now(), self.life
        well, fresh = self._read(now)
        for alarm in self._alarms(now, fresh):
            life.react(alarm, now, t)
        if life.finish_arming(now, t, fresh):
            self._note_command()  # what was commanded before is no command of this motion
        self._note_state(fresh)
        return well

    def _read(self, now: int) -> tuple[bool, bool]:
        """Read the arm; return whether it answered, and whether with a new state."""
        life = self.life
        if life.machine.state is State.DISCONNECTED:
            return False, False
        try:
            fresh = self._driver.read(self._next)
            if fresh and not np.isfinite(self._next.q).all():
                raise RobotError("a joint's position is not a number")
        except RobotError as error:
            life.watch.read_failed()
            if life.machine.state not in LATCHED:
                life.failed(now, Code.READ_FAILED, Severity.WARNING, error, life.watch.failures)
            return False, False
        if fresh:  # so that half an answer is never looked at
            life.reading, self._next = self._next, life.reading
        life.watch.saw(now, fresh)
        return True, fresh

    def _look_at_switch(self, now: int, t: int) -> None:
        """Hold if nobody holds the deadman's switch, or nobody would hear a word to stop."""
        watch, desk, machine = self.robot.watch, self._operator, self.life.machine
        for code, patience, last in (
            (Code.DEADMAN_LOST, watch.deadman, desk.held()),
            (Code.SUPERVISOR_SILENT, watch.supervisor, desk.attended()),
        ):
            age = (now - last) * 1e-9
            late = patience is not None and age > patience
            if late and machine.wanted is not None and machine.state not in LATCHED:
                self.life.react(Alarm(code, Reaction.HOLD, (age,)), now, t)

    def _alarms(self, now: int, fresh: bool) -> list[Alarm]:
        """Look at what was read, and at when anything was."""
        life, machine = self.life, self.life.machine
        if machine.state is State.DISCONNECTED or machine.state in LATCHED:
            return []
        alarms = list(life.watch.silent(now))
        if fresh:
            alarms += life.watch.ill(life.reading, machine.state in WRITING)
            if machine.state in WRITING:
                alarms += life.watch.astray(life.reading, life.motion.filter.limiter.q)
        return alarms

    def _listen(self, now: int, t: int) -> None:
        """Empty the mailboxes; look at what comes from the one who is wanted, while the arm can be seen."""
        if self._successor is not None and (heir := self._successor.take()) is not None:
            self._gates[State.RUNNING].policies = {self._policy, heir}
        for speaker, mailbox in self._mailboxes.items():
            message = mailbox.take()
            heard = self.clock.now()  # it may have been made since the tick began
            if speaker is not self.life.machine.wanted or self.life.watch.stale:
                continue
            if message is not None:
                self._heard = heard
                self._consider(message, speaker, heard, t)
            elif now - self._heard > self.robot.watch.silence * 1e9:
                self.life.tell(now, Code.POLICY_SILENT, Severity.WARNING, (now - self._heard) * 1e-9)
                self._heard = now

    def _consider(self, message: bytes, speaker: State, now: int, t: int) -> None:
        """Take a chunk or refuse it."""
        machine, motion, gate = self.life.machine, self.life.motion, self._gates[speaker]
        refusal = Refusal.unpack(message)
        if refusal is not None and refusal.policy in gate.policies:
            if refusal.epoch == machine.epoch:
                self._count_refusal(now, t)
            return
        try:
            chunk = Chunk.unpack(message)
        except MessageError:
            self._refuse(Rejection(Code.CHUNK_SHAPE, (-1, -1, self.robot.columns)), now, t)
            return
        found = gate.judge(chunk, now, motion.due(t), machine.epoch, motion.filter.limiter.q)
        if isinstance(found, Rejection):
            self._refuse(found, now, t)
            return
        self._rejections, self._taken = 0, chunk.seq
        if speaker is State.RUNNING and chunk.policy != self._policy:
            self._policy = chunk.policy
            gate.policies = {chunk.policy}
            self.life.tell(now, Code.POLICY_SWAPPED, Severity.INFO, chunk.seq)
        if machine.state is not speaker:
            motion.merging = self._merging[speaker]
            motion.begin(t)
            machine.enter(speaker, now)
        if found.clipped:
            self.life.tell(now, Code.CHUNK_CLIPPED, Severity.WARNING, found.clipped)
        if not motion.adopt(t, chunk, found):
            numbers = chunk.committed, chunk.executed, len(chunk.data)
            self.life.tell(now, Code.CHUNK_NOT_CONTINUED, Severity.WARNING, *numbers)

    def _refuse(self, why: Rejection, now: int, t: int) -> None:
        self.life.tell(now, why.code, Severity.WARNING, *why.numbers)
        self._count_refusal(now, t)

    def _count_refusal(self, now: int, t: int) -> None:
        self._rejections += 1
        if self._rejections == self.robot.watch.rejections and self.life.machine.state in MOVING:
            self.life.tell(now, Code.REJECTED_TOO_OFTEN, Severity.WARNING, self._rejections)
            self.life.hold(now, t)

    def _move(self, now: int, t: int) -> None:
        """Move the command by one period."""
        life, state = self.life, self.life.machine.state
        self._marks = Mark(0)
        if state in MOVING:
            self._marks, findings = life.motion.follow(t)
            for code, numbers in findings:
                life.tell(now, code, Severity.WARNING, *numbers)
            if Mark.HELD in self._marks:
                life.machine.enter(State.HOLD, now)
            elif life.motion.ended(t):
                life.tell(now, Code.STARVED, Severity.WARNING, (now - self._heard) * 1e-9)
                life.machine.enter(State.HOLD, now)
        elif state in WRITING:
            life.motion.brake()
            if state is State.STOPPING and life.motion.at_rest:
                life.end_stopping(now)

    def _write(self, now: int) -> bool:
        """Send the command; return whether it was sent."""
        life = self.life
        try:
            life.outlet.write(life.motion.filter.limiter.q, life.motion.opening)
        except CommandRefused as error:
            life.tell(now, Code.WRITE_REFUSED, Severity.STOP, *error.numbers)
            life.fault(now, State.FAULT)
            return False
        except RobotError as error:
            self._write_failures += 1
            life.failed(now, Code.WRITE_FAILED, Severity.WARNING, error, self._write_failures)
            if self._write_failures >= self.robot.watch.failures:
                self._write_failures = 0
                life.fault(now, State.FAULT)
            return False
        self._write_failures = 0
        return True

    def _note_command(self) -> None:
        """Fill in what is commanded, and by whom."""
        row, motion, state = self.row[0], self.life.motion, self.life.machine.state
        speaker = {State.RUNNING: Source.POLICY, State.HUMAN: Source.HUMAN}.get(state, Source.HOLD)
        row["source"], row["marks"] = Source.FILTER if self._marks else speaker, self._marks
        row["chunk"] = self._taken if state is State.RUNNING else 0
        row["reference"], row["command"] = motion.reference, motion.filter.limiter.q
        row["command_speed"], row["opening"] = motion.filter.limiter.dq, motion.opening

    def _note_state(self, fresh: bool) -> None:
        """Fill in what was read, and what became of the arm by it."""
        row, reading, machine = self.row[0], self.life.reading, self.life.machine
        row["t_received"], row["t_device"], row["fresh"] = reading.t_received, reading.t_device, fresh
        row["q"], row["dq"], row["effort"] = reading.q, reading.dq, reading.effort
        row["wrench"], row["gripper"], row["status"] = reading.wrench, reading.gripper, reading.status
        row["state"], row["epoch"] = machine.state, machine.epoch
