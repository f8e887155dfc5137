"""The supervisor: starts the processes of a robot, speaks for the operator, notices when one of them dies."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from robopol.errors import RobotError
from robopol.real_robot.camera_desk import CameraDesk
from robopol.real_robot.channels import Channels, event_of
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.events import Event
from robopol.real_robot.operator import OperatorConfig
from robopol.real_robot.operators.keys import Terminal
from robopol.real_robot.process import Child
from robopol.real_robot.pulse import Pulse
from robopol.real_robot.renewal import Renewal
from robopol.real_robot.rings import Memory, Ring
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.stage import Stage
from robopol.real_robot.states import Command, State
from robopol.real_robot.succession import Succession
from robopol.real_robot.world import world_type

_WORLDS = 256  # rows of a simulated world that are kept
END_TIME = 5.0
"""Longest time that the servo loop takes to stop the arm and end, s."""


class Supervisor:
    """All processes of one robot.

    Attributes:
        channels: The memory that they share.
        policy: What the policy, or who observes in its place, says of itself: ``id``, ``latency``, ``executed``,
            ``merging``, ``spec``.
        help: How the operator's device is used; empty without one.
        scheduling: How the servo loop is scheduled.
        cameras: Looks after the cameras.
        state: The newest state of the arm that was seen.
        recorded: Epoch in which a motion ended -> whether it is on disk, as far as `alarms` has heard of it.
    """

    def __init__(
        self,
        robot: RobotConfig,
        speaker: dict[str, Any],
        record: Path | None = None,
        world: list[int] | None = None,
        operator: OperatorConfig | None = None,
        *,
        eyes: str = "policy_process",
        keys: int = 0,
    ) -> None:
        """Start who observes, the cameras, the servo loop, the recorder if there is where to record, and the device.

        Args:
            robot: The robot.
            speaker: Tree of `robopol.real_robot.policy_process.Speaker`, or of what ``eyes`` reads.
            record: Folder that episodes go to.
            world: Numbers of positions and of mocap bodies of the simulated scene that the policy sees.
            operator: The device that a person leads the arm with; it has the deadman's switch then.
            eyes: The process that observes: ``policy_process``, or ``demonstration_process`` where nobody plans.
            keys: Descriptor of the terminal at which keys are typed for a device that takes them.

        Raises:
            RobotError: If one of them does not come up.
        """
        self.robot, self._speaker, self._record, self._eyes = robot, speaker, record, eyes
        self._clock, self.channels = MonotonicClock(), Channels.new(robot)
        self._children: dict[str, Child] = {}
        self._dead: set[str] = set()
        self._world: dict[str, Any] | None = None
        self._memory: Memory | None = None
        self._terminal: Terminal | None = None
        self.help = ""
        self.state, self._epoch = State.DISCONNECTED, -1
        self._renewals: dict[str, Renewal] = {}
        self._words: list[str] = []
        self.recorded: dict[int, bool] = {}
        self._heir: Succession | None = None
        self._left: list[Child] = []  # killed, and not waited for: meanwhile nobody would hear the servo loop
        self.cameras = CameraDesk(robot, self.channels.films, self._start_camera, self._clock)
        self._observes = {"scene": world is not None, "recorded": record is not None}
        try:
            sizes = world or sizes_for_cameras(robot)
            if sizes is not None:
                self._memory = Memory.new(Ring.size(world_type(sizes), _WORLDS))
                self._world = {"memory": self._memory.handle(), "sizes": sizes}
            self.policy = self._start(eyes, speaker=speaker, **self._observes)
            cameras = {name: self._start_camera(name) for name in robot.cameras}
            for name, camera in cameras.items():
                self.cameras.add(name, camera)
            for camera in cameras.values():
                camera.ready()
            often = self.policy["executed"] / self.policy["spec"]["control_hz"] + self.policy["latency"]
            self.robot = robot.heard_every(often)
            said = self._new_servo().ready()
            self.scheduling: str = said["scheduling"]
            self._pulse = Pulse(self._clock.now(), self.robot.period)
            if record is not None:
                about = {"speaker": speaker} | self.policy
                device = None if operator is None else operator.tree()
                self._start("recorder", folder=str(record), policy=about, steps=self.policy["steps"], operator=device)
            if operator is not None:
                if operator.terminal:
                    self._terminal = Terminal(os.dup(keys))
                terminal = None if self._terminal is None else self._terminal.fd
                self.help = self._start("operator_process", operator=operator.tree(), terminal=terminal)["help"]
        except BaseException:
            self.close()
            raise

    def restart_policy(self) -> None:
        """Start the policy anew, after it died or because it hangs; `alarms` says when it is there, or why it is not.

        The arm goes on with its next chunk, if it was to follow the policy before.
        """
        self._give_up()
        self._let_go(self._children.pop(self._eyes))
        self._dead.discard(self._eyes)
        child = self._children[self._eyes] = self._child(self._eyes, speaker=self._speaker, **self._observes)
        back = ", and the arm goes on with its next plan if it was told to run"
        self._renewals[self._eyes] = Renewal("the policy", child, back, self.policy["id"])

    def swap_policy(self, speaker: dict[str, Any], record: Path | None) -> None:
        """Let another policy take the place of the one that speaks, once it was tried; `alarms` says how it goes.

        Args:
            speaker: Tree of its `robopol.real_robot.policy_process.Speaker`.
            record: Folder of recorded episodes that it is tried on.
        """
        self._give_up()
        folder, known = None if record is None else str(record), self.policy
        after = {"spec": known["spec"], "id": known["id"], "record": folder, "scene": self._observes["scene"]}
        self._heir = Succession(self._child(self._eyes, speaker=speaker, after=after, **self._observes), speaker)

    def _give_up(self) -> None:
        """End a policy that was to take the place of the one that speaks, and has not yet."""
        if self._heir is not None:
            self._let_go(self._heir.child)
            self._heir = None

    def _let_go(self, child: Child) -> None:
        """Kill a process and do not wait for it."""
        child.process.kill()
        self._left.append(child)

    def _succeed(self, heir: Succession) -> None:
        """Take the next step of a succession, if it is time."""
        old = self._children[self._eyes]
        try:
            if heir.fit() and heir.said is not None:
                self.channels.successor.put(bytes.fromhex(heir.said["id"]))
                heir.part(old)
        except RobotError as error:
            self._words.append(f"the new weights are refused, and those before go on: {error}")
            self._give_up()
            return
        if heir.said is None or not heir.parted(old):
            return
        self._dead.discard(self._eyes)
        self._left.append(old)
        self._children[self._eyes], self._heir = heir.child, None
        self._speaker, self.policy = heir.speaker, heir.said
        if (recorder := self._children.get("recorder")) is not None:
            recorder.tell(policy={"speaker": heir.speaker} | heir.said)
        self._words.append(f"new weights act from their next plan on: {heir.speaker['checkpoint']}, {heir.said['id']}")

    def _renew(self) -> None:
        """Hear whether what was started anew is ready."""
        for name, renewal in list(self._renewals.items()):
            try:
                words = renewal.settled()
            except RobotError as error:
                words = str(error)
                self._dead.add(name)
            if words is not None:
                self._words.append(words)
                del self._renewals[name]

    def restart_servo(self, robot: RobotConfig, tell: Callable[[Event], None]) -> None:
        """Stop the arm and start its loop anew, as with a simulated arm that is placed elsewhere.

        Raises:
            RobotError: If it does not come up.
        """
        self.quit(tell)
        self._children.pop("servo_process").end(END_TIME)
        self.robot, self.state = robot.model_copy(update={"watch": self.robot.watch}), State.DISCONNECTED
        self._new_servo().ready()
        self._pulse = Pulse(self._clock.now(), self.robot.period)

    def rebuild_servo(self) -> None:
        """Start the loop of an arm anew, with a new driver, after it died; `alarms` says when it is there, or why not.

        The arm is only connected then: what chunks were made for before counts for nothing. A loop that runs is left
        alone.
        """
        if self._children["servo_process"].alive:
            self._words.append("the servo loop runs; it is started anew only after it died")
            return
        self._children.pop("servo_process").end(0.0)
        self._dead.discard("servo_process")
        back = " and its arm connected; it does not move until it is armed"
        self._renewals["servo_process"] = Renewal("the servo loop", self._new_servo(), back)
        self.state, self._pulse = State.DISCONNECTED, Pulse(self._clock.now(), self.robot.period)

    def _new_servo(self) -> Child:
        # what is left of chunks of the loop before is of an epoch that this one never has
        told = {"policy": self.policy["id"], "epoch": self._epoch + 1}
        if "merging" in self.policy:
            told["merging"] = self.policy["merging"]
        child = self._children["servo_process"] = self._child("servo_process", **told)
        return child

    def order(self, command: Command, argument: int = 0) -> None:
        """Tell the servo loop what the operator says."""
        self.channels.order(command, argument)

    def hold_switch(self) -> None:
        """Say that the deadman's switch is held now; for programs of one's own, where no operator's device has it."""
        self.channels.hold_switch(self._clock.now())

    def quit(self, tell: Callable[[Event], None]) -> None:
        """Stop the arm and wait until its loop has ended; every event meanwhile is told."""
        self.order(Command.QUIT)
        child, end = self._children.get("servo_process"), time.monotonic() + END_TIME
        while child is not None and child.alive and time.monotonic() < end:
            for event in self.events():
                tell(event)
            time.sleep(0.02)
        for event in self.events():
            tell(event)

    def events(self) -> list[Event]:
        """Return what happened since the last call, by which the servo loop knows that what is said is heard.

        An arm that moves brakes and holds after `robopol.real_robot.robot.WatchConfig.supervisor` without it.
        """
        self.channels.beat(self._clock.now())
        ticks = self.channels.ticks.take()
        if len(ticks):
            self.state, self._epoch = State(int(ticks["state"][-1])), int(ticks["epoch"][-1])
            words = self._pulse.hear(self.state, int(ticks["t"][-1] + ticks["late"][-1]))
            self._words += [words] if words else []
        return [event_of(row) for ring in (self.channels.events, self.channels.remarks) for row in ring.take()]

    def alarms(self) -> list[str]:
        """Return what a person should know, in words: of cameras, arm, loop and recorder, of a policy's return.

        To be called after `events`, by which the servo loop's ticks are heard.
        """
        self._renew()
        if self._heir is not None and self._eyes not in self._renewals:
            self._succeed(self._heir)
        for gone in [child for child in self._left if not child.alive]:
            gone.end(0.0)
            self._left.remove(gone)
        self._hear_complaints()
        silent = self._pulse.alarm(self._clock.now()) if self._children["servo_process"].alive else None
        said, self._words = [*self._words, *([silent] if silent else [])], []
        return said + self.cameras.tend()

    def _hear_complaints(self, patience: float = 0.0) -> None:
        """Hear what driver and recorder could not do; of the recorder all that it says within so many seconds."""
        self._words += [f"the arm: {row['words'].decode(errors='replace')}" for row in self.channels.complaints.take()]
        recorder, end = self._children.get("recorder"), time.monotonic() + patience
        with suppress(RobotError):  # one that has ended is told of by `deaths`
            while recorder is not None and (said := recorder.heard(end - time.monotonic())) is not None:
                if "lost" in said:
                    self._words.append(f"the recorder: {said['lost']}")
                else:
                    self.recorded[said["epoch"]] = said["written"]

    def _hear_out(self) -> None:
        """Let the recorder write what went on to the end, and print what nobody will ask `alarms` for any more."""
        recorder = self._children.get("recorder")
        if recorder is not None and recorder.process.stdin is not None:
            with suppress(BrokenPipeError):
                recorder.process.stdin.close()
        self._hear_complaints(END_TIME)
        for words in self._words:
            print(f"ALARM: {words}", file=sys.stderr, flush=True)
        self._words = []

    def deaths(self) -> list[str]:
        """Return the names of the processes that died since the last call; a servo loop that hangs is killed first."""
        servo = self._children["servo_process"]
        if servo.alive and self._pulse.lost(self._clock.now()):
            servo.end(0.0)
        leaving = self._eyes if self._heir is not None and self._heir.said is not None else None
        known = {*self._dead, leaving}
        found = [name for name, child in self._children.items() if not child.alive and name not in known]
        self._dead.update(found)
        if "operator_process" in found and self._terminal is not None:
            self._terminal.close()
        return found

    def why(self, name: str) -> str:
        """Return what a process that died said of it; empty if nothing."""
        return self._children[name].last_words()

    def pid(self, name: str) -> int:
        """Return the number of a process, such as ``servo_process``."""
        return self._children[name].process.pid

    def close(self) -> None:
        """Stop the arm and end all processes, the servo loop first, and those early that nobody needs any more.

        Whatever goes wrong with one of them, the others are ended.
        """
        self._give_up()
        with ExitStack() as stack:  # what is put there first comes last
            if self._memory is not None:
                stack.callback(self._memory.close)
            stack.callback(self.channels.close)
            if self._terminal is not None:
                stack.callback(os.close, self._terminal.fd)
                stack.callback(self._terminal.close)
                self._terminal = None
            for gone in self._left:
                stack.callback(gone.end, 0.0)
            stack.callback(self._end, self._eyes, 2.0)
            stack.callback(self._end, "operator_process", 2.0)
            stack.callback(self._end, "recorder", 1.0)
            stack.callback(self._hear_out)
            stack.callback(self.cameras.close)
            stack.callback(self._end, "servo_process", END_TIME)

    def _end(self, name: str, patience: float) -> None:
        child = self._children.pop(name, None)
        if child is not None:
            child.end(patience)

    def _start(self, module: str, **setup: Any) -> dict[str, Any]:
        child = self._children[module] = self._child(module, **setup)
        return child.ready()

    def _start_camera(self, name: str) -> Child:
        return self._child("camera_process", camera=name)

    def _child(self, module: str, **setup: Any) -> Child:
        common = {"robot": self.robot.tree(), "channels": self.channels.handles(), "world": self._world}
        extra = [holder.fd for holder in (self._memory, self._terminal) if holder is not None]
        return Child(module, common | setup, self.channels.descriptors + extra)


def sizes_for_cameras(robot: RobotConfig) -> list[int] | None:
    """Return the sizes of the simulated world that cameras see; None if there is no such world, or no camera."""
    if robot.driver.kind != "simulated" or not robot.cameras:
        return None
    return Stage(robot.driver.model, lambda: None).sizes
