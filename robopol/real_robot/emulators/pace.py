"""Lets the time of an emulated controller pass by itself, or only as far as it is told: lock-step by another process.

A client that runs threads of its own cannot be given a clock. It can be given a controller that stands still between
two steps: what the client has sent is heard at the beginning of a step, and at its end comes the state.
"""

import json
import threading
from collections.abc import Callable

from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.emulators import models
from robopol.real_robot.emulators.arm import Arm
from robopol.real_robot.emulators.ur import PERIOD
from robopol.real_robot.emulators.ur_server import URServer

AGAIN = 300_000_000
"""Time of the machine after which one that stands still says its state again, ns."""
SLIP = 20_000_000
"""Most time that passes between two looks at what clients say, ns: less than a program's watchdog waits for a goal."""


class Pace:
    """Serves a controller, whose time is that of the machine until it is told ``hold``."""

    def __init__(self, server: URServer) -> None:
        """Serve ``server``."""
        self.server = server
        self._clock, self._lock = MonotonicClock(), threading.Lock()
        self._free, self._t = True, server.controller.t
        self._ahead = self._clock.now() - self._t  # of the machine's clock

    def serve(self, running: Callable[[], bool]) -> None:
        """Serve while ``running()``; `obey` may be called by another thread meanwhile."""
        said = self._clock.now()
        while running() and not self.server.controller.faults.closed:
            with self._lock:
                self.server.cycle(self._now())
                if not self._free and self._clock.now() - said > AGAIN:
                    said = self._clock.now()
                    self.server.repeat()
            self.server.wait(min(max(0.0, (self.server.controller.t + PERIOD - self._now()) * 1e-9), 0.002))
        self.server.close()

    def obey(self, line: str) -> str | None:
        """Do what a line says; return the answer, None if it is no word of these.

        ``free``: time passes by itself. ``hold``: it stands still. ``pass N``: hear what was said, let N ns pass, tell
        the state. ``scene FILE``: another arm, six of whose servos are the controller's. Each answers, as JSON, with
        the time of the newest state that was sent, ns, and where all is: MuJoCo's positions, those of mocap bodies,
        their orientations.
        ``push X``: see `Arm.push`; answers with the time alone, that of the cycle in which it happens.
        """
        word, _, rest = line.strip().partition(" ")
        with self._lock:
            if word in ("free", "hold"):
                self._t = self._now()
                self._free, self._ahead = word == "free", self._clock.now() - self._t
            elif word == "pass":
                self.server.cycle(self.server.controller.t)
                self._t += int(rest)
                self.server.cycle(self._t)
            elif word == "push":
                self.server.controller.arm.push(float(rest))
                return str(self.server.controller.t + PERIOD)
            elif word == "scene":
                controller = self.server.controller
                controller.end()
                controller.arm = Arm(models.read(rest), controller.t, 6)
            else:
                return None
            data = self.server.controller.arm.data
            world = data.qpos.tolist(), data.mocap_pos.tolist(), data.mocap_quat.tolist()
            return json.dumps([self.server.told, *world])

    def _now(self) -> int:
        """Return the controller's time; where the machine is too slow for it, it slips rather than falls behind."""
        if self._free:
            machine, most = self._clock.now() - self._ahead, self._t + SLIP
            self._ahead += max(0, machine - most)
            self._t = min(machine, most)
        return self._t
