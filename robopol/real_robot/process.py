"""One child process of a supervisor: how it is started, heard and ended; what it does itself is in `child`."""

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from robopol.errors import RobotError

START_TIME = 120.0
"""Longest time until a process says that it is ready, s; a policy may have to be loaded and compiled."""
KILLED = 0.2
"""Longest time that one that was killed is waited for, s; one that hangs in the system ends when that lets it go."""


class Child:
    """One process, which ends when the pipe to it is closed."""

    def __init__(self, module: str, setup: dict[str, Any], descriptors: list[int]) -> None:
        """Start a fresh interpreter with a module of this package."""
        self.name = module
        self._said, saying = os.pipe()
        self._heard = b""
        command = [sys.executable, "-m", f"robopol.real_robot.{module}", str(saying)]
        # OpenMP and BLAS threads of one process would fight with the servo loop for its processor
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=2,  # whatever a driver prints is for people
            pass_fds=[*descriptors, saying],
            env=environment,
            start_new_session=True,  # Ctrl-C is for the supervisor, who stops the arm first
        )
        os.close(saying)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(setup).encode() + b"\n")
        self.process.stdin.flush()

    def tell(self, **tree: Any) -> None:
        """Say something to it; one that has ended hears nothing."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(tree).encode() + b"\n")
            self.process.stdin.flush()

    def ready(self) -> dict[str, Any]:
        """Wait until it says that it is ready.

        Raises:
            RobotError: If it does not, with what it says instead.
        """
        end = time.monotonic() + START_TIME
        while (said := self.heard(end - time.monotonic())) is None:
            if time.monotonic() > end:
                raise RobotError(f"{self.name} was not ready after {START_TIME:.0f} s")
        return said

    def heard(self, patience: float = 0.0) -> dict[str, Any] | None:
        """Return the next that it says, None if there is nothing within so many seconds.

        Raises:
            RobotError: If it says that something is wrong, or has ended.
        """
        line = self._line(patience)
        if line is None:
            return None
        if not line:
            raise RobotError(f"{self.name} ended before it was ready, with status {self.process.wait()}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:  # it ends, which takes its time
            raise RobotError(said["error"])
        return said

    def last_words(self) -> str:
        """Return the error that it said after it was ready, if it did."""
        while line := self._line(0.0):
            said: dict[str, Any] = json.loads(line)
            if "error" in said:
                return str(said["error"])
        return ""

    def _line(self, patience: float) -> bytes | None:
        """Return the next line, None if none is there in time, nothing if there will be none any more."""
        while b"\n" not in self._heard:
            if self._said < 0:  # it was ended
                return b""
            if not select.select([self._said], [], [], max(patience, 0.0))[0]:
                return None
            part = os.read(self._said, 65536)
            if not part:
                return b""
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def end(self, patience: float) -> None:
        """Close the pipe to it, and kill it if it does not end in time."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):  # what was told to one that had ended is still to be written
                self.process.stdin.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(KILLED)
        if self._said >= 0:
            os.close(self._said)
            self._said = -1
