"""The pictures of one camera in shared memory: one process takes them, others look at those of the time they want."""

from typing import Any, NamedTuple

import numpy as np

from robopol.real_robot.camera import CameraConfig, Frame
from robopol.real_robot.rings import Box, Memory, Ring, Slots

SECONDS = 2.0
"""So long a picture is kept, if the camera keeps its rate."""
_NUMBERS = 4


def frame_type(size: tuple[int, int]) -> np.dtype[Any]:
    """Return the row of a picture: when it was taken, ns, and its pixels (H, W, 3)."""
    return np.dtype([("t", np.int64), ("image", np.uint8, (*size, 3))])


class Pulse(NamedTuple):
    """What a camera's process says each time that it asked for a picture.

    Attributes:
        t: When, ns.
        repeated: How often, up to now, the newest picture has come again: the camera is frozen, if not 0.
        missed: Pictures of the camera's rate that never came, all together.
        pid: Its process.
    """

    t: int
    repeated: int
    missed: int
    pid: int


class Film:
    """The newest pictures of a camera, and how it goes; see `robopol.real_robot.rings` for who may do what.

    Attributes:
        row: What a picture is in memory.
        ring: The pictures one after the other, for who wants all of them.
    """

    def __init__(self, frames: Memory, pulse: Memory, size: tuple[int, int]) -> None:
        """Look at memories of `sizes`."""
        self.row = frame_type(size)
        self._memories = frames, pulse
        self.ring = Ring(frames, self.row)
        self._slots, self._box = Slots(frames, self.row.itemsize), Box(pulse, 8 * _NUMBERS)
        self._pulse = Pulse(0, 0, 0, 0)

    @staticmethod
    def sizes(camera: CameraConfig) -> tuple[int, int]:
        """Return how many bytes of memory its pictures and its pulse need."""
        count = int(SECONDS * camera.fps) + 4
        return Ring.size(frame_type(camera.size), count), Box.size(8 * _NUMBERS)

    @classmethod
    def new(cls, camera: CameraConfig) -> "Film":
        """Make one for use within a process."""
        frames, pulse = (Memory.new(size) for size in cls.sizes(camera))
        return cls(frames, pulse, camera.size)

    def put(self, frame: Frame) -> None:
        """Add a picture."""
        row = np.zeros(1, self.row)
        row["t"], row["image"] = frame.t, frame.image
        self.ring.put(row)

    def beat(self, pulse: Pulse) -> None:
        """Say how it goes."""
        self._box.put(np.array(pulse, np.int64).tobytes())

    @property
    def pulse(self) -> Pulse:
        """How it went last; zeros if nothing was said yet."""
        message = self._box.take()
        if message is not None:
            self._pulse = Pulse(*np.frombuffer(message, np.int64).tolist())
        return self._pulse

    def newest(self) -> int | None:
        """Return when the newest picture was taken, ns; None if there is none."""
        stamps = self._stamps()
        return stamps[-1][0] if stamps else None

    def at(self, t: int) -> Frame | None:
        """Return the picture that was taken nearest to time ``t``, ns; None if there is none."""
        for _, number in sorted(self._stamps(), key=lambda stamp: abs(stamp[0] - t)):
            message = self._slots.get(number)
            if message is not None:  # else it was overwritten meanwhile
                row = np.frombuffer(message, self.row)[0]
                return Frame(int(row["t"]), row["image"].copy())
        return None

    def close(self) -> None:
        """Let go of the memory."""
        for memory in self._memories:
            memory.close()

    def _stamps(self) -> list[tuple[int, int]]:
        """Return time and number of all pictures that are there, oldest first."""
        count, found = self._slots.count, []
        for number in range(max(0, count - self._slots.capacity), count):
            begin = self._slots.peek(number, 8)
            if begin is not None:
                found.append((int.from_bytes(begin, "little", signed=True), number))
        return found
