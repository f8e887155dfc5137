"""All the memory that the processes of one robot share."""

import numpy as np
from numpy.typing import NDArray

from robopol.real_robot.chunk import ID_BYTES, Chunk
from robopol.real_robot.events import NUMBERS, Code, Event, Severity
from robopol.real_robot.film import Film
from robopol.real_robot.rings import Box, Memory, Ring
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.ticks import tick_type

EVENT_ROW = np.dtype(
    [
        ("t", np.int64),
        ("code", np.int64),
        ("severity", np.int64),
        ("count", np.int64),
        ("numbers", np.float64, (NUMBERS,)),
    ]
)
ORDER_ROW = np.dtype([("command", np.int64), ("argument", np.int64)])
WORDS_ROW = np.dtype([("words", "S480")])

_TICKS, _EVENTS, _ORDERS, _STEPS = 4096, 4096, 64, 1 << 23  # rows; of the last, bytes
_WORDS = 64


class Channels:
    """The rings and boxes between supervisor, servo loop, policy and recorder.

    Attributes:
        ticks: Rows of the servo loop.
        events: Its events.
        complaints: Why its driver could not do something, in words. To print them is not for a loop that must not wait.
        orders: What the operator says by the supervisor.
        said: What they say by a device of their own.
        switch: When the deadman's switch was held, ns.
        heartbeat: When the supervisor was there, and heard what is said, ns.
        policy: Chunks of the policy.
        human: Chunks of the human.
        successor: Id of a policy that may take the place of the one that speaks.
        steps: Memory for the policy's own record, whose rows are known once the policy is.
        remarks: Events that the policy's process reports.
        films: Name of a camera -> its pictures.
    """

    def __init__(self, robot: RobotConfig, memories: dict[str, Memory]) -> None:
        """Look at memories of `sizes`."""
        self.memories = memories
        self.ticks = Ring(memories["ticks"], tick_type(len(robot.joints)))
        self.events = Ring(memories["events"], EVENT_ROW)
        self.complaints = Ring(memories["complaints"], WORDS_ROW)
        self.orders = Ring(memories["orders"], ORDER_ROW)
        self.said = Ring(memories["said"], ORDER_ROW)
        self.switch = Box(memories["switch"], 8)
        self.heartbeat = Box(memories["heartbeat"], 8)
        self.policy = Box(memories["policy"], Chunk.size(robot.columns))
        self.human = Box(memories["human"], Chunk.size(robot.columns))
        self.successor = Box(memories["successor"], ID_BYTES)
        self.steps = memories["steps"]
        self.remarks = Ring(memories["remarks"], EVENT_ROW)
        self.films = {
            name: Film(memories[f"frames.{name}"], memories[f"pulse.{name}"], camera.size)
            for name, camera in robot.cameras.items()
        }

    @classmethod
    def new(cls, robot: RobotConfig) -> "Channels":
        """Make them."""
        sizes = {
            "ticks": Ring.size(tick_type(len(robot.joints)), _TICKS),
            "events": Ring.size(EVENT_ROW, _EVENTS),
            "complaints": Ring.size(WORDS_ROW, _WORDS),
            "orders": Ring.size(ORDER_ROW, _ORDERS),
            "said": Ring.size(ORDER_ROW, _ORDERS),
            "switch": Box.size(8),
            "heartbeat": Box.size(8),
            "policy": Box.size(Chunk.size(robot.columns)),
            "human": Box.size(Chunk.size(robot.columns)),
            "successor": Box.size(ID_BYTES),
            "steps": _STEPS,
            "remarks": Ring.size(EVENT_ROW, _EVENTS),
        }
        for name, camera in robot.cameras.items():
            sizes[f"frames.{name}"], sizes[f"pulse.{name}"] = Film.sizes(camera)
        return cls(robot, {name: Memory.new(size) for name, size in sizes.items()})

    @classmethod
    def open(cls, robot: RobotConfig, handles: dict[str, list[int]]) -> "Channels":
        """Open them in a child process."""
        return cls(robot, {name: Memory(*handle) for name, handle in handles.items()})

    def handles(self) -> dict[str, list[int]]:
        """Return what a child process opens them by."""
        return {name: memory.handle() for name, memory in self.memories.items()}

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that a child process must inherit."""
        return [memory.fd for memory in self.memories.values()]

    def close(self) -> None:
        """Let go of the memory."""
        for memory in self.memories.values():
            memory.close()

    def report(self, event: Event) -> None:
        """Put an event of the servo loop into its ring."""
        self.events.put(row_of(event))

    def complain(self, words: str) -> None:
        """Put what the servo loop's driver said into its ring, as much of it as a row holds."""
        row = np.zeros(1, WORDS_ROW)
        row["words"] = words.encode()
        self.complaints.put(row)

    def remark(self, event: Event) -> None:
        """Put an event of the policy's process into its ring."""
        self.remarks.put(row_of(event))

    def order(self, command: int, argument: int = 0) -> None:
        """Put a command of the operator into its ring."""
        self.orders.put(_order(command, argument))

    def say(self, command: int, argument: int = 0) -> None:
        """Put a command that an operator's device gave into its ring."""
        self.said.put(_order(command, argument))

    def hold_switch(self, t: int) -> None:
        """Say when the deadman's switch was held, ns; 0 says that it was let go."""
        self.switch.put(t.to_bytes(8, "little", signed=True))

    def beat(self, t: int) -> None:
        """Say when the supervisor was there, ns."""
        self.heartbeat.put(t.to_bytes(8, "little", signed=True))


def _order(command: int, argument: int) -> NDArray[np.void]:
    row = np.zeros(1, ORDER_ROW)
    row["command"], row["argument"] = command, argument
    return row


def row_of(event: Event) -> NDArray[np.void]:
    """Return an event as a row, a structured array (1,)."""
    row = np.zeros(1, EVENT_ROW)
    numbers = event.numbers[:NUMBERS]
    row["t"], row["code"], row["severity"], row["count"] = event.t, event.code, event.severity, len(numbers)
    row["numbers"][0, : len(numbers)] = numbers
    return row


def event_of(row: np.void) -> Event:
    """Return the event that a row holds."""
    numbers = tuple(float(number) for number in row["numbers"][: int(row["count"])])
    return Event(int(row["t"]), Code(int(row["code"])), Severity(int(row["severity"])), numbers)
