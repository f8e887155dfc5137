"""An operator's device beside a bench in lock-step: its loop is stepped between ticks, every 20 ms."""

import os

import numpy as np
from lockstep import MS

from robopol.config import parse
from robopol.real_robot.operator import Operator, Saying
from robopol.real_robot.operator_loop import PERIOD, OperatorLoop
from robopol.real_robot.operator_process import Seat
from robopol.real_robot.states import State

REPEAT = 30 * MS


class Typist:
    """Hands at a keyboard: what a terminal would give of keys that are tapped and held."""

    def __init__(self, clock):
        self.clock, self.down, self.since, self.sent, self.waiting = clock, "", 0, 0, b""

    def tap(self, keys):
        self.waiting += keys.encode()

    def hold(self, key):
        """Hold a key from now on, or none; it repeats after 0.5 s every 30 ms."""
        if key != self.down:
            self.waiting += key.encode()
            self.down, self.since, self.sent = key, self.clock.now(), 0

    def typed(self):
        if self.down:
            due = max(0, (self.clock.now() - self.since - 500 * MS) // REPEAT)
            self.waiting += (self.down * (due - self.sent)).encode()
            self.sent = due
        found, self.waiting = self.waiting, b""
        return found


class Pad:
    """A gamepad at the other end of a FIFO."""

    def __init__(self, folder):
        self.path = folder / "js0"
        os.mkfifo(self.path)

    def open(self):
        self.fd = os.open(self.path, os.O_WRONLY)

    def put(self, kind, number, value):
        from robopol.real_robot.operators.gamepad import EVENT

        os.write(self.fd, EVENT.pack(0, value, kind, number))


class Scripted(Operator):
    """Says what it was told to say."""

    def __init__(self):
        self.said = Saying(False)

    def connect(self):
        return ""

    def listen(self, target):
        said, self.said = self.said, self.said._replace(orders=())
        return said

    def close(self):
        pass


def operator_of(tree, bench, typed=lambda: b""):
    return parse(Seat, {"operator": tree}).operator.build(bench.robot, bench.clock, typed)


class Led:
    """A bench whose arm is led by a device.

    The bench's own `say` and `held_at` are not used: commands and the switch come from the device.
    """

    def __init__(self, bench, operator):
        self.bench, self.operator = bench, operator
        self.rows, self.chunks = 0, []
        self.loop = OperatorLoop(
            bench.robot, operator, bench.clock, self._ticks, self._post, self._hold, lambda *o: bench.orders.append(o)
        )
        self.help = operator.connect()
        self.next = 0

    def run(self, seconds, each=lambda: None):
        """Tick; before a tick the device's loop is stepped when its time has come."""

        def before():
            each()
            if self.bench.clock.now() >= self.next:
                self.next = self.bench.clock.now() + PERIOD
                self.loop.step()

        self.bench.run(seconds, before)
        return self

    def until(self, state, seconds=1.0, each=lambda: None):
        for _ in range(round(seconds / self.bench.robot.period)):
            if self.bench.state is state:
                return self
            self.run(self.bench.robot.period, each)
        raise AssertionError(f"it is in {self.bench.state.name}, not {state.name}: {self.bench.events[-4:]}")

    def _ticks(self):
        rows, self.rows = self.bench.rows[self.rows :], len(self.bench.rows)
        return np.array(rows, rows[0].dtype) if rows else []

    def _post(self, message):
        self.chunks.append(message)
        self.bench.human.message = message

    def _hold(self, t):
        self.bench.held_at = t


def speakers(rows):
    """Return the states in which an arm followed somebody, one after the other."""
    states = [State(int(row["state"])) for row in rows]
    runs = [a for a, b in zip(states, [*states[1:], None], strict=True) if a is not b]
    return [state for state in runs if state in (State.RUNNING, State.HUMAN)]
