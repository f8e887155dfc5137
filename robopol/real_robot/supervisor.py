"""The supervisor: starts the processes of a robot, speaks for the operator, notices when one of them dies."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from robopol.errors import RobotError
from robopol.real_robot.channels import Channels, event_of
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.events import Event
from robopol.real_robot.rings import Memory, Ring
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.states import Command, State

START_TIME = 120.0
"""Longest time until a process says that it is ready, s; a policy may have to be loaded and compiled."""
END_TIME = 5.0
"""Longest time that the servo loop takes to stop the arm and end, s."""


class Child:
    """One process, which ends when the pipe to it is closed."""

    def __init__(self, module: str, setup: dict[str, Any], descriptors: list[int]) -> None:
        """Start a fresh interpreter with a module of this package."""
        self.name = module
        command = [sys.executable, "-m", f"robopol.real_robot.{module}"]
        # OpenMP and BLAS threads of one process would fight with the servo loop for its processor
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=descriptors,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the supervisor, who stops the arm first
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(setup).encode() + b"\n")
        self.process.stdin.flush()

    def ready(self) -> dict[str, Any]:
        """Wait until it says that it is ready.

        Raises:
            RobotError: If it does not, with what it says instead.
        """
        assert self.process.stdout is not None
        line, end = b"", time.monotonic() + START_TIME
        while not line.endswith(b"\n"):
            rest = end - time.monotonic()
            if rest <= 0 or not select.select([self.process.stdout], [], [], rest)[0]:
                raise RobotError(f"{self.name} was not ready after {START_TIME:.0f} s")
            byte = os.read(self.process.stdout.fileno(), 65536)
            if not byte:
                raise RobotError(f"{self.name} ended before it was ready, with status {self.process.wait()}")
            line += byte
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            self.process.wait()
            raise RobotError(said["error"])
        return said

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def end(self, patience: float) -> None:
        """Close the pipe to it, and kill it if it does not end in time."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Supervisor:
    """All processes of one robot.

    Attributes:
        channels: The memory that they share.
        policy: What the policy says of itself: ``id``, ``latency``, ``executed``, ``spec``.
        scheduling: How the servo loop is scheduled.
        state: The newest state of the arm that was seen.
    """

    def __init__(
        self,
        robot: RobotConfig,
        speaker: dict[str, Any],
        record: Path | None = None,
        world: list[int] | None = None,
    ) -> None:
        """Start the policy, the servo loop and, if there is where to record, the recorder.

        Args:
            robot: The robot.
            speaker: Tree of `robopol.real_robot.policy_process.Speaker`.
            record: Folder that episodes go to.
            world: Numbers of positions and of mocap bodies of the simulated scene that the policy sees.

        Raises:
            RobotError: If one of them does not come up.
        """
        self.robot, self._speaker, self._record = robot, speaker, record
        self._clock, self.channels = MonotonicClock(), Channels.new(robot)
        self._children: dict[str, Child] = {}
        self._dead: set[str] = set()
        self._world: dict[str, Any] | None = None
        self._memory: Memory | None = None
        self.state = State.DISCONNECTED
        try:
            if world is not None:
                from robopol.real_robot.servo_process import world_type

                self._memory = Memory.new(Ring.size(world_type(world), 64))
                self._world = {"memory": self._memory.handle(), "sizes": world}
            self.policy = self._start("policy_process", speaker=speaker)
            often = self.policy["executed"] / self.policy["spec"]["control_hz"] + self.policy["latency"]
            self.robot = robot.heard_every(often)
            said = self._start("servo_process", policy=self.policy["id"])
            self.scheduling: str = said["scheduling"]
            if record is not None:
                about = {"speaker": speaker} | self.policy
                self._start("recorder", folder=str(record), policy=about, steps=self.policy["steps"])
        except BaseException:
            self.close()
            raise

    def restart_policy(self) -> None:
        """Start the policy anew after it died; its chunks are taken again once they are fresh.

        Raises:
            RobotError: If it does not come up, or is another one than before.
        """
        self._children.pop("policy_process").end(0.0)
        self._dead.discard("policy_process")
        said = self._start("policy_process", speaker=self._speaker)
        if said["id"] != self.policy["id"]:
            raise RobotError("the policy has changed since the servo loop was told whom to trust: start anew")

    def order(self, command: Command, argument: int = 0) -> None:
        """Tell the servo loop what the operator says."""
        self.channels.order(command, argument)

    def hold_switch(self) -> None:
        """Say that the deadman's switch is held now."""
        self.channels.switch.put(self._clock.now().to_bytes(8, "little", signed=True))

    def events(self) -> list[Event]:
        """Return what happened since the last call."""
        ticks = self.channels.ticks.take()
        if len(ticks):
            self.state = State(int(ticks["state"][-1]))
        return [event_of(row) for row in self.channels.events.take()]

    def deaths(self) -> list[str]:
        """Return the names of the processes that died since the last call."""
        found = [name for name, child in self._children.items() if not child.alive and name not in self._dead]
        self._dead.update(found)
        return found

    def pid(self, name: str) -> int:
        """Return the number of a process: of ``servo_process``, ``policy_process`` or ``recorder``."""
        return self._children[name].process.pid

    def close(self) -> None:
        """Stop the arm and end all processes, the servo loop first."""
        for name, patience in (("servo_process", END_TIME), ("recorder", END_TIME), ("policy_process", 2.0)):
            child = self._children.pop(name, None)
            if child is not None:
                child.end(patience)
        self.channels.close()
        if self._memory is not None:
            self._memory.close()

    def _start(self, module: str, **setup: Any) -> dict[str, Any]:
        common = {"robot": self.robot.tree(), "channels": self.channels.handles(), "world": self._world}
        extra = [] if self._memory is None else [self._memory.fd]
        child = self._children[module] = Child(module, common | setup, self.channels.descriptors + extra)
        return child.ready()
