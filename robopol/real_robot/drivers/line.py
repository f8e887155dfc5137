"""A serial line that never waits past its deadline, and the vendors' port handlers on it."""

import select
from typing import Any, Protocol

from robopol.errors import MissingExtraError
from robopol.real_robot.clock import Clock


class Line(Protocol):
    """Bytes to and from a bus."""

    def write(self, data: bytes) -> None:
        """Send ``data``."""

    def read(self, n: int, until: int) -> bytes:
        """Return up to ``n`` bytes: all of them as soon as they are there, what there is at time ``until``, ns."""

    def discard(self) -> None:
        """Throw away all that has come and was not read."""

    def close(self) -> None:
        """Close it."""


class SerialLine:
    """A serial port, or whatever pyserial opens by a URL, such as ``socket://localhost:5000``."""

    def __init__(self, port: str, baud: int, timeout: float, clock: Clock) -> None:
        """Open it.

        Args:
            port: A device or a URL.
            baud: Bits a second.
            timeout: Longest time that a write may take, s.
            clock: Of the deadlines.

        Raises:
            OSError: If it cannot be opened.
        """
        try:
            import serial
        except ImportError as error:
            raise MissingExtraError("pyserial", "feetech", "a serial port") from error
        self._clock = clock
        self._port = serial.serial_for_url(port, baudrate=baud, timeout=0, write_timeout=timeout, do_not_open=True)
        if hasattr(self._port, "exclusive"):
            self._port.exclusive = True
        self._port.open()
        self._port.reset_input_buffer()

    def write(self, data: bytes) -> None:
        """See `Line.write`."""
        self._port.write(data)

    def read(self, n: int, until: int) -> bytes:
        """See `Line.read`; it sleeps meanwhile, as spinning takes the processor from the rest."""
        data: bytes = self._port.read(n)
        while len(data) < n and (rest := until - self._clock.now()) > 0:
            select.select([self._port.fileno()], [], [], rest * 1e-9)
            data += self._port.read(n - len(data))
        return data

    def discard(self) -> None:
        """See `Line.discard`."""
        self._port.reset_input_buffer()

    def close(self) -> None:
        """See `Line.close`."""
        self._port.close()


class _Port:
    """Put in front of a vendor's ``PortHandler``: waits asleep, on the monotonic clock, within one deadline.

    What it puts right: Feetech's never throws away old input, so that one late answer shifts all answers after it;
    both wait by spinning, count time on the wall clock, and allow 34 ms and more for an answer.
    """

    line: Line
    clock: Clock
    until: int

    def clearPort(self) -> None:
        self.line.discard()

    def readPort(self, length: int) -> bytes:
        return self.line.read(length, self.until)

    def writePort(self, packet: list[int]) -> int:
        self.line.write(bytes(packet))
        return len(packet)

    def setPacketTimeout(self, packet_length: int) -> None:
        pass  # the deadline is that of the whole exchange

    def isPacketTimeout(self) -> bool:
        return self.clock.now() >= self.until


def port_handler(vendor: type, line: Line, clock: Clock) -> Any:
    """Return a port handler of a vendor's class on a line; set its ``until``, ns, before each exchange."""
    port = type("Port", (_Port, vendor), {})("")
    port.line, port.clock, port.until, port.is_open = line, clock, 0, True
    return port
