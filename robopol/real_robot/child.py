"""What the processes of a robot have in common: how they begin, end with their parent, and are scheduled."""

import ctypes
import gc
import json
import os
import select
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29


_SAYING = 1  # the descriptor by which it speaks to its parent, unless one was named


class Lifeline:
    """The pipe from the parent: once it is closed, the parent is gone.

    Attributes:
        setup: What the parent wrote first, one line of JSON.
    """

    def __init__(self) -> None:
        """Read the setup from standard input; SIGTERM and SIGHUP are taken as the parent's end.

        What is said to the parent goes by a descriptor of its own, the program's argument: what a driver prints does
        not come in between, nor fill a pipe that nobody empties.
        """
        global _SAYING
        if len(sys.argv) > 1:
            _SAYING = int(sys.argv[1])
            os.set_inheritable(_SAYING, False)
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(0, 65536)
            if not byte:
                raise SystemExit(1)
            line += byte
        self.setup: dict[str, Any] = json.loads(line)
        self._cut, self._heard = False, b""
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN | select.POLLHUP)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what the operator presses is the parent's to hear

    def held(self) -> bool:
        """Say whether the parent is still there."""
        if not self._cut and self._poll.poll(0):
            found = os.read(0, 65536)
            self._cut, self._heard = not found, self._heard + found
        return not self._cut

    def told(self) -> dict[str, Any] | None:
        """Return the next that the parent said after the setup, None if it has said no more so far."""
        self.held()
        line, end, rest = self._heard.partition(b"\n")
        if not end:
            return None
        self._heard = rest
        said: dict[str, Any] = json.loads(line)
        return said

    def _end(self, number: int, frame: object) -> None:
        self._cut = True


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Let the system send a signal when the parent dies, where it can."""
    _prctl(_PR_SET_PDEATHSIG, number)


def be_punctual(priority: int = 45) -> str:
    """Make the process as punctual as it is allowed to be, and say what was granted.

    No garbage collection, precise timers, and, where permitted, the scheduler for real time. What the loop runs makes
    no cycles of objects, so nothing is lost without a collector.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    _prctl(_PR_SET_TIMERSLACK, 1)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))  # type: ignore[attr-defined,unused-ignore]
    except (PermissionError, AttributeError, OSError):
        return "best effort: no permission for SCHED_FIFO (ulimit -r, or a limits.conf entry 'rtprio')"
    return f"SCHED_FIFO {priority}"


def be_polite() -> None:
    """Leave the processor to the servo loop."""
    os.nice(10)


def say(**tree: Any) -> None:
    """Tell the parent something, as one line of JSON."""
    line = json.dumps(tree).encode() + b"\n"
    while line:
        line = line[os.write(_SAYING, line) :]


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
