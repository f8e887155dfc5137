"""What a terminal tells of keys: bytes when they are pressed and while they repeat; nothing when they are let go."""

import os
import select
from typing import Any

ESCAPE = 0x1B
PIECES = 50_000_000
"""Longest time between two pieces of what one key sends, ns; what comes later, or in no such order, is another key."""


class Terminal:
    """A terminal that gives every key at once and shows none, until it is closed; Ctrl-C stays what it is."""

    def __init__(self, fd: int) -> None:
        """Take it; what is no terminal, such as a pipe, is only read."""
        self.fd = fd
        self._before: list[Any] | None = None
        if os.isatty(fd):
            import termios
            import tty

            self._before = termios.tcgetattr(fd)
            tty.setcbreak(fd)

    def close(self) -> None:
        """Give it back as it was."""
        before, self._before = self._before, None
        if before is not None:
            import termios

            termios.tcsetattr(self.fd, termios.TCSADRAIN, before)


def typed_at(fd: int) -> bytes | None:
    """Return what was typed at a terminal since the last call, without waiting; None if it is gone."""
    found = b""
    while select.select([fd], [], [], 0)[0]:
        try:
            part = os.read(fd, 4096)
        except OSError:
            part = b""
        if not part:
            return found or None
        found += part
    return found


class Keys:
    """Which key is held, as far as that can be known.

    A key that repeats is known to be let go ``patience`` after its last byte. One that was pressed only now may or may
    not be held until it repeats, which takes the keyboard's ``delay``. Only the key that was pressed last repeats.
    """

    def __init__(self, delay: float, patience: float) -> None:
        """Wait for so many seconds; see the class."""
        self._delay, self._patience = round(delay * 1e9), round(patience * 1e9)
        self._key, self._last, self._until = "", 0, 0
        self._sequence, self._came = "", 0

    def hear(self, data: bytes, now: int) -> list[str]:
        """Take bytes that came by ``now``, ns; return the keys that were pressed, without those that only repeat.

        What arrows and their like send, which begins with an escape and ``[`` or ``O`` and ends with a letter, is
        passed over, and an escape by itself. The key that comes next is heard: it may be the one that stops the arm.
        """
        if now - self._came > PIECES:
            self._sequence = ""
        pressed, self._came = [], now if data else self._came
        for byte in data:
            if byte == ESCAPE:
                self._sequence = "\x1b"
            elif len(self._sequence) > 1:
                over = 0x40 <= byte <= 0x7E and byte != ord("[")  # F1 of a console sends ESC [[A
                self._sequence = "" if over else self._sequence + chr(byte)
            elif self._sequence and byte in b"[O":
                self._sequence += chr(byte)
            elif byte < 0x80:
                self._sequence = ""
                key = chr(byte)
                again = key == self._key and now - self._last <= self._delay + self._patience
                if not again:
                    pressed.append(key)
                self._key, self._last = key, now
                self._until = now + (self._patience if again else self._delay)
        return pressed

    def held(self, now: int) -> bool:
        """Say whether any key may be held."""
        return now < self._until

    def moving(self, now: int) -> str:
        """Return the key that is to move something: one heard of within ``patience``; empty if there is none."""
        return self._key if self._key and now - self._last < self._patience else ""
