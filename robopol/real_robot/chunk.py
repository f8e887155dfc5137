"""A chunk: the actions that a policy proposes, as joint positions with the times at which they are to hold."""

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from robopol.config import Config
from robopol.errors import MessageError
from robopol.real_robot.events import Code

Vector = NDArray[np.float64]

ID_BYTES = 16
"""Length of a policy's id."""
_HEADER, _REFUSAL = struct.Struct("<16sqqqqqqiiii"), struct.Struct("<16sq")
HORIZON_MAX = 256
"""Most rows of a chunk."""
FAR = 3_600_000_000_000
"""Longest time from an observation to the first action, and from one action to the next, ns."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Actions k = 0 ... H - 1, each of which is to hold at ``t_first + k step``.

    Joint positions only: what a policy says in other spaces becomes joint positions on its own side
    (`robopol.real_robot.waypoints`), where there is time for it.

    Attributes:
        policy: Id of the policy, 16 bytes.
        seq: Number of the chunk; each is greater than the one before.
        epoch: Epoch of the servo loop in which it was asked for.
        t_observed: When the newest observation was made, ns.
        t_created: When it was finished, ns.
        t_first: When action 0 is to hold, ns.
        step: Time between two actions, ns.
        data: (H, n) or, with a gripper, (H, n + 1): joint positions, rad, and the opening, 0 to 1.
        committed: d, actions of the running plan that it was made to begin with.
        executed: s, actions of it that are meant to be executed.
    """

    policy: bytes
    seq: int
    epoch: int
    t_observed: int
    t_created: int
    t_first: int
    step: int
    data: Vector
    committed: int = 0
    executed: int = 1

    def times(self) -> NDArray[np.int64]:
        """Return when each action is to hold, (H,) ns."""
        return self.t_first + np.arange(len(self.data), dtype=np.int64) * self.step

    def pack(self) -> bytes:
        """Return it as bytes."""
        data = np.ascontiguousarray(self.data, np.float64)
        if data.ndim != 2 or len(data) > HORIZON_MAX:
            raise MessageError(f"a chunk has shape {data.shape}; needed are rows, at most {HORIZON_MAX}, and columns")
        times = (self.t_observed, self.t_created, self.t_first, self.step)
        tail = (*data.shape, self.committed, self.executed)
        return _HEADER.pack(self.policy, self.seq, self.epoch, *times, *tail) + data.tobytes()

    @staticmethod
    def unpack(message: bytes) -> "Chunk":
        """Read what `pack` wrote.

        Raises:
            MessageError: If it is too short or too long for what it says of itself.
        """
        if len(message) < _HEADER.size:
            raise MessageError(f"a chunk of {len(message)} bytes has no header")
        head: tuple[Any, ...] = _HEADER.unpack_from(message)
        policy, seq, epoch, observed, created, first, step, rows, columns, committed, executed = head
        body = message[_HEADER.size :]
        if rows < 0 or columns < 0 or rows > HORIZON_MAX or rows * columns * 8 != len(body):
            raise MessageError(f"a chunk says it has {rows} x {columns} numbers, and has {len(body)} bytes of them")
        data = np.frombuffer(body, np.float64).reshape(rows, columns)
        return Chunk(policy, seq, epoch, observed, created, first, step, data, committed, executed)

    @staticmethod
    def size(columns: int) -> int:
        """Return how many bytes a chunk of so many columns has at most."""
        return _HEADER.size + HORIZON_MAX * columns * 8


class Refusal(NamedTuple):
    """What is sent in place of a plan that was refused, and told of, where it was made: it counts as a refused chunk.

    Attributes:
        policy: Id of the policy, 16 bytes.
        epoch: Epoch of the servo loop in which the plan was asked for.
    """

    policy: bytes
    epoch: int

    def pack(self) -> bytes:
        """Return it as bytes, fewer than those of any chunk."""
        return _REFUSAL.pack(*self)

    @staticmethod
    def unpack(message: bytes) -> "Refusal | None":
        """Read what `pack` wrote; None if it is something else."""
        return Refusal(*_REFUSAL.unpack(message)) if len(message) == _REFUSAL.size else None


class GateConfig(Config):
    """Which chunks are taken.

    Attributes:
        max_age: Greatest age of the observation that a chunk was made from, s.
        max_latency: Greatest time from that observation until the chunk was made, s.
        low: Least value that was trained on of each column, those of the joints and then that of the gripper; None is
            the joints' limits.
        high: Greatest value that was trained on of each column; None is the joints' limits.
        margin: Share of the range by which it is widened on either side.
        strict: Whether a chunk with a value outside the widened range is refused; otherwise it is clipped.
        jump: Greatest distance of its first usable action from what is commanded now, rad, of every joint.
    """

    max_age: float = Field(0.5, gt=0)
    max_latency: float = Field(0.5, gt=0)
    low: tuple[FiniteFloat, ...] | None = None
    high: tuple[FiniteFloat, ...] | None = None
    margin: float = Field(0.1, ge=0)
    strict: bool = True
    jump: float = Field(0.4, gt=0)


class Rejection(NamedTuple):
    """Why a chunk was refused."""

    code: Code
    numbers: tuple[float, ...] = ()


class Usable(NamedTuple):
    """What is left of a chunk that was taken.

    Attributes:
        times: When the actions that are not too late are to hold, (K,) ns, at least one.
        values: These actions (K, n) or (K, n + 1).
        clipped: How many numbers were clipped.
    """

    times: NDArray[np.int64]
    values: Vector
    clipped: int


class Gate:
    """Looks at every chunk before anything is made of it; the first four steps of the filter.

    Attributes:
        policies: Ids of those that may speak.
        seq: Greatest number so far.
    """

    def __init__(self, config: GateConfig, joints: int, low: Vector, high: Vector) -> None:
        """Make a gate.

        Args:
            config: The thresholds.
            joints: n, the columns that are joints.
            low: Least value of each column (A,), before the range is widened.
            high: Greatest value of each column (A,).
        """
        self.config, self.joints = config, joints
        self._low, self._high = low - config.margin * (high - low), high + config.margin * (high - low)
        self.policies: set[bytes] = set()
        self.seq = -1

    def judge(self, chunk: Chunk, now: int, due: int, epoch: int, q: Vector) -> Usable | Rejection:
        """Take a chunk or refuse it.

        Args:
            chunk: The chunk.
            now: The time, ns.
            due: The time from which actions are still of use, ns.
            epoch: The present epoch.
            q: Commanded joint positions (n,), rad.

        Returns:
            Its actions that are still of use, or the first fault that was found.
        """
        data, columns = chunk.data, len(self._low)
        if not (isinstance(data, np.ndarray) and data.dtype == np.float64 and data.ndim == 2):
            return Rejection(Code.CHUNK_SHAPE, (-1, -1, columns))
        if data.shape[1] != columns or not 1 <= len(data) <= HORIZON_MAX:
            return Rejection(Code.CHUNK_SHAPE, (*data.shape, columns))
        if not np.isfinite(data).all():
            return Rejection(Code.CHUNK_NOT_FINITE, (float(np.sum(~np.isfinite(data))),))
        if chunk.policy not in self.policies:
            return Rejection(Code.CHUNK_POLICY)
        if chunk.epoch != epoch:
            return Rejection(Code.CHUNK_EPOCH, (chunk.epoch, epoch))
        if chunk.seq <= self.seq:
            return Rejection(Code.CHUNK_ORDER, (chunk.seq, self.seq))
        if not (
            chunk.t_observed <= chunk.t_created <= now
            and 0 <= chunk.t_first - chunk.t_observed <= FAR
            and 0 < chunk.step <= FAR
        ):
            times = (chunk.t_observed, chunk.t_created, chunk.t_first)
            return Rejection(Code.CHUNK_TIME, (*((t - now) * 1e-9 for t in times), chunk.step * 1e-9))
        # From here on it is a true message of one who may speak, so its number counts as used.
        self.seq = chunk.seq
        return self._of_use(chunk, now, due, q)

    def _of_use(self, chunk: Chunk, now: int, due: int, q: Vector) -> Usable | Rejection:
        config = self.config
        age, latency = (now - chunk.t_observed) * 1e-9, (chunk.t_created - chunk.t_observed) * 1e-9
        if age > config.max_age:
            return Rejection(Code.CHUNK_OLD, (age, config.max_age))
        if latency > config.max_latency:
            return Rejection(Code.CHUNK_SLOW, (latency, config.max_latency))
        times = chunk.times()
        first = int(np.searchsorted(times, due))
        if first == len(times):
            return Rejection(Code.CHUNK_LATE, ((due - int(times[-1])) * 1e-9,))
        values = np.clip(chunk.data, self._low, self._high)
        excess = np.abs(chunk.data - values)
        clipped = int(np.count_nonzero(excess))
        if clipped and config.strict:
            row, column = np.unravel_index(int(np.argmax(excess)), excess.shape)
            return Rejection(Code.CHUNK_RANGE, (float(column), chunk.data[row, column], values[row, column]))
        times, values = times[first:], values[first:]
        distance = np.abs(values[0, : self.joints] - q)
        if distance.max() > config.jump:
            joint = int(np.argmax(distance))
            return Rejection(Code.CHUNK_JUMP, (joint, float(distance[joint]), config.jump))
        return Usable(times, values, clipped)
