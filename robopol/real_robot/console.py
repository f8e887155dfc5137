"""The terminal of a program that moves an arm: it is told and not waited for, and does not suspend the program."""

import os
import select
import signal
from contextlib import suppress
from queue import Full, Queue
from threading import Thread

_KEPT = 10_000  # lines by which what is read may lag behind what is said


class Console:
    """Lines for a person, written by a thread of its own.

    A terminal that was stopped by Ctrl-S, a connection that stalls or a pipe that nobody empties make whoever writes
    wait; who has to hear a word to stop must not be that. What is more than can be kept meanwhile is left out. Ctrl-Z
    would suspend who hears: within, it raises KeyboardInterrupt as Ctrl-C does.

    Attributes:
        gone: Whether nobody can read any more.
    """

    def __init__(self, fd: int = 1) -> None:
        """Write to a descriptor."""
        self.gone, self._fd = False, fd
        self._lines: Queue[str | None] = Queue(_KEPT)
        self._thread = Thread(target=self._write, name="console", daemon=True)

    def __enter__(self) -> "Console":
        """Begin; in the main thread, which hears signals."""
        self._before = signal.signal(signal.SIGTSTP, signal.default_int_handler)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Wait until all of it is written, as nothing moves any more; Ctrl-C ends that."""
        signal.signal(signal.SIGTSTP, self._before)
        self._lines.put(None)
        self._thread.join()

    def say(self, line: str) -> None:
        """Say a line, or several, without waiting."""
        with suppress(Full):
            self._lines.put_nowait(line)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            rest = b"" if self.gone else f"{line}\n".encode(errors="replace")
            try:
                while rest:  # not by sys.stdout, whose lock the end of the program would wait for
                    select.select([], [self._fd], [])
                    rest = rest[os.write(self._fd, rest) :]
            except OSError:
                self.gone = True
