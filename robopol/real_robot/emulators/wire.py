"""How bytes come to an emulated device and back: at once in virtual time, or over a pty or a socket in real time."""

import heapq
import itertools
import os
import pty
import select
import socket
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from robopol.real_robot.clock import Clock


class Latency(NamedTuple):
    """How long bytes take.

    Attributes:
        baud: Bits a second; a byte is ten of them.
        turnaround: From the end of a question to the start of its answer, ns.
        adapter: What the USB adapter adds to each answer, ns.
    """

    baud: int = 1_000_000
    turnaround: int = 20_000
    adapter: int = 0

    def on_wire(self, n: int) -> int:
        """Return how long ``n`` bytes take, ns."""
        return round(n * 10e9 / self.baud)


NOMINAL = Latency()
"""A wire at 1 Mbaud."""


class Unplugged(OSError):
    """The device is gone."""


class Device(ABC):
    """Something at the other end of a serial line."""

    @abstractmethod
    def receive(self, data: bytes, t: int) -> list[tuple[int, bytes]]:
        """Take bytes that were sent at ``t``, ns.

        Returns:
            What comes back: (when its last byte arrives, ns; bytes).

        Raises:
            Unplugged: If the device is gone.
        """

    @abstractmethod
    def advance(self, t: int) -> None:
        """Let time pass up to ``t``, ns, whether or not anybody speaks."""


class LockStepLine:
    """A `robopol.real_robot.drivers.line.Line` to a device in this process; waiting is what moves the clock."""

    def __init__(self, device: Device, clock: Clock) -> None:
        """Connect to a device; the clock is a `robopol.real_robot.clock.VirtualClock`."""
        self._device, self._clock = device, clock
        self._coming: list[tuple[int, int, bytes]] = []
        self._order = itertools.count()
        self._here = bytearray()

    def write(self, data: bytes) -> None:
        """Send ``data``."""
        for due, answer in self._device.receive(data, self._clock.now()):
            heapq.heappush(self._coming, (due, next(self._order), answer))

    def read(self, n: int, until: int) -> bytes:
        """Return up to ``n`` bytes by time ``until``, ns."""
        self._arrive()
        while len(self._here) < n and self._clock.now() < until:
            self._clock.sleep_until(min(until, self._coming[0][0]) if self._coming else until)
            self._device.advance(self._clock.now())
            self._arrive()
        data = bytes(self._here[:n])
        del self._here[:n]
        return data

    def discard(self) -> None:
        """Throw away what has arrived; what is under way comes later."""
        self._arrive()
        self._here.clear()

    def close(self) -> None:
        """Nothing is open."""

    @property
    def waiting(self) -> int:
        """How many bytes have arrived."""
        self._arrive()
        return len(self._here)

    def _arrive(self) -> None:
        while self._coming and self._coming[0][0] <= self._clock.now():
            self._here += heapq.heappop(self._coming)[2]


class RealTimeLine:
    """Serves a device over a pty, or to one client at a time over TCP, until it is told to stop."""

    def __init__(self, device: Device, clock: Clock, tcp: int | None = None) -> None:
        """Open it.

        Args:
            device: What answers.
            clock: A `robopol.real_robot.clock.MonotonicClock`.
            tcp: Port on the loopback interface, 0 for any that is free; None for a pty.
        """
        self._device, self._clock = device, clock
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self._pty: int | None = None
        if tcp is None:
            self._pty, self._terminal = pty.openpty()
            tty.setraw(self._terminal)  # kept open, so that a client may come and go
            os.set_blocking(self._pty, False)
            self.address = os.ttyname(self._terminal)
        else:
            self._listener = socket.create_server(("127.0.0.1", tcp))
            self.address = f"socket://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self, running: Callable[[], bool]) -> None:
        """Serve while ``running()``; it is asked at least every 10 ms."""
        coming: list[tuple[int, int, bytes]] = []
        order = itertools.count()
        while running():
            now = self._clock.now()
            self._device.advance(now)
            try:
                while coming and coming[0][0] <= now:
                    self._send(heapq.heappop(coming)[2])
                for due, answer in self._device.receive(self._next(coming), self._clock.now()):
                    heapq.heappush(coming, (due, next(order), answer))
            except Unplugged:
                break
        self.close()

    def close(self) -> None:
        """Close all of it; a client sees the device vanish."""
        for one in (self._client, self._listener):
            if one is not None:
                one.close()
        if self._pty is not None:
            os.close(self._pty)
            os.close(self._terminal)
        self._pty = self._listener = self._client = None

    def _next(self, coming: list[tuple[int, int, bytes]]) -> bytes:
        """Wait until bytes come or an answer is due, and return the bytes."""
        source = self._pty if self._pty is not None else self._client or self._listener
        wait = 0.01 if not coming else min(0.01, max(0.0, (coming[0][0] - self._clock.now()) * 1e-9))
        if source is None or not select.select([source], [], [], wait)[0]:
            return b""
        if self._pty is not None:
            return os.read(self._pty, 4096)
        if self._client is None:
            assert self._listener is not None
            self._client, _ = self._listener.accept()
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return b""
        try:
            data = self._client.recv(4096)
        except ConnectionError:
            data = b""
        if not data:
            self._client.close()
            self._client = None
        return data

    def _send(self, data: bytes) -> None:
        try:
            if self._pty is not None:
                os.write(self._pty, data)
            elif self._client is not None:
                self._client.sendall(data)
        except (BlockingIOError, ConnectionError):
            pass  # nobody reads: a wire does not wait either
