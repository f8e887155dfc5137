"""Memory shared between processes: rings of fixed rows, and boxes that hold one message.

One process writes, any number read, and nobody waits: a writer never knows who reads, and a reader that is slow loses
rows and is told how many. Each row carries its number and a checksum over both, so a reader takes a row that was
written while it copied, or that a killed writer left half done, for what it is, whatever the order in which a processor
makes stores visible.
"""

import mmap
import os
import struct
import tempfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEAD = 64
_NUMBER = struct.Struct("<q")
_FRAME = struct.Struct("<qqI4x")  # number, length, checksum
_TRIES = 4


class Memory:
    """A piece of memory without a name, which child processes inherit and which ends with the last of them.

    Attributes:
        fd: Its file descriptor, to be passed on to child processes.
        size: Bytes.
        view: Its bytes.
    """

    def __init__(self, fd: int, size: int) -> None:
        """Look at the memory behind a descriptor."""
        self.fd, self.size = fd, size
        self._map = mmap.mmap(fd, size)
        self.view = memoryview(self._map)

    @classmethod
    def new(cls, size: int) -> "Memory":
        """Make new memory, all zero."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("robopol", 0)
        else:  # no such thing on macOS
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, size)
        os.set_inheritable(fd, True)
        return cls(fd, size)

    def close(self) -> None:
        """Let go of it; rings and boxes on it must not be used any more."""
        self.view.release()
        self._map.close()
        os.close(self.fd)

    def handle(self) -> list[int]:
        """Return what `Memory` is made from in a child process that has inherited the descriptor."""
        return [self.fd, self.size]


class Slots:
    """Numbered messages with checksums, in places of one size; rings and boxes are made of them.

    Attributes:
        capacity: How many of the newest messages are kept.
    """

    def __init__(self, memory: Memory, payload: int) -> None:
        """Look at memory of messages of at most ``payload`` bytes."""
        self._view = memory.view
        self._stride = -(-(_FRAME.size + payload) // 64) * 64
        self.capacity = (memory.size - _HEAD) // self._stride

    @staticmethod
    def size(payload: int, count: int) -> int:
        """Return how many bytes of memory so many messages of at most so many bytes need."""
        return _HEAD + count * -(-(_FRAME.size + payload) // 64) * 64

    def put(self, number: int, message: bytes) -> None:
        """Write message ``number``, in place of an old one. Only one process may do so."""
        start = _HEAD + (number % self.capacity) * self._stride
        body = start + _FRAME.size
        _NUMBER.pack_into(self._view, start, -1)  # whoever looks now sees that it is being written
        self._view[body : body + len(message)] = message
        frame = _FRAME.pack(number, len(message), _checksum(number, message))
        self._view[start + 8 : body] = frame[8:]
        self._view[start : start + 8] = frame[:8]
        self._view[:8] = _NUMBER.pack(number + 1)

    def get(self, number: int) -> bytes | None:
        """Return message ``number``, or None if it is not there, or not any more, or not whole."""
        start = _HEAD + (number % self.capacity) * self._stride
        found, length, checksum = _FRAME.unpack_from(self._view, start)
        if found != number or not 0 <= length <= self._stride - _FRAME.size:
            return None
        body = start + _FRAME.size
        message = bytes(self._view[body : body + length])
        return message if checksum == _checksum(number, message) else None

    def peek(self, number: int, length: int) -> bytes | None:
        """Return how message ``number`` begins, or None if it is not there; what is read so may be half written."""
        start = _HEAD + (number % self.capacity) * self._stride
        if _NUMBER.unpack_from(self._view, start)[0] != number:
            return None
        return bytes(self._view[start + _FRAME.size : start + _FRAME.size + length])

    @property
    def count(self) -> int:
        """How many messages were put so far."""
        return int(_NUMBER.unpack_from(self._view, 0)[0])


class Ring:
    """Rows of one kind, the newest of which are kept.

    Attributes:
        row: What a row is.
        place: Number of the row that this reader takes next.
        lost: Rows that this reader came too late for.
    """

    def __init__(self, memory: Memory, row: np.dtype[Any]) -> None:
        """Write to a ring, or read it from its newest row on."""
        self._slots, self.row = Slots(memory, row.itemsize), row
        self.place = self._slots.count
        self.lost = 0

    @staticmethod
    def size(row: np.dtype[Any], rows: int) -> int:
        """Return how many bytes of memory a ring of so many rows needs."""
        return Slots.size(row.itemsize, rows)

    def put(self, row: NDArray[np.void]) -> None:
        """Write one row, a structured array (1,). Only one process may do so."""
        self._slots.put(self._slots.count, row.tobytes())

    @property
    def count(self) -> int:
        """How many rows were put so far."""
        return self._slots.count

    def skip(self) -> None:
        """Leave out the rows up to now."""
        self.place = self._slots.count

    def take(self, most: int | None = None) -> NDArray[np.void]:
        """Return the rows since the last call, (K,), oldest first; those that are gone are counted.

        Args:
            most: At most so many; the others are left for the next call. None takes all.
        """
        count, found = self._slots.count, []
        oldest = count - self._slots.capacity
        if self.place < oldest:
            self.lost += oldest - self.place
            self.place = oldest
        if most is not None:
            count = min(count, self.place + most)
        while self.place < count:
            message = self._slots.get(self.place)
            if message is None or len(message) != self.row.itemsize:
                self.lost += 1
            else:
                found.append(message)
            self.place += 1
        return np.frombuffer(b"".join(found), self.row)


class Joined:
    """Several rings of the same rows, read as one."""

    def __init__(self, *rings: Ring) -> None:
        """Read rings; rows have a time ``t``."""
        self._rings = rings

    @property
    def lost(self) -> int:
        """Rows that this reader came too late for."""
        return sum(ring.lost for ring in self._rings)

    def take(self) -> NDArray[np.void]:
        """Return the rows since the last call, (K,), in the order of their times."""
        rows = np.concatenate([ring.take() for ring in self._rings])
        return rows[np.argsort(rows["t"], kind="stable")]


class Box:
    """One message; a new one replaces it."""

    def __init__(self, memory: Memory, payload: int) -> None:
        """Write to a box, or read what is put into it from now on."""
        # two places, so that there is a whole message at any time
        self._slots, self._payload = Slots(memory, payload), payload
        self._seen = self._slots.count

    @staticmethod
    def size(payload: int) -> int:
        """Return how many bytes of memory a box for messages of at most so many bytes needs."""
        return Slots.size(payload, 2)

    def put(self, message: bytes) -> None:
        """Put a message in place of the one before. Only one process may do so.

        Raises:
            ValueError: If it is longer than the box was made for.
        """
        if len(message) > self._payload:
            raise ValueError(f"a message of {len(message)} bytes does not fit into a box of {self._payload}")
        self._slots.put(self._slots.count, message)

    def take(self) -> bytes | None:
        """Return the newest message, once; None if there is no new one."""
        for _ in range(_TRIES):
            count = self._slots.count
            if count <= self._seen:
                return None
            message = self._slots.get(count - 1)
            if message is not None:
                self._seen = count
                return message
        return None  # the writer is faster than we are: next time


def _checksum(number: int, message: bytes) -> int:
    return zlib.crc32(message, number & 0xFFFFFFFF)
