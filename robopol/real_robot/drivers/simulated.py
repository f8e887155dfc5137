"""An arm in MuJoCo, in this process: to develop without hardware and without a wire."""

from typing import Literal

import numpy as np
from pydantic import Field

from robopol.config import Config
from robopol.errors import RobotError
from robopol.real_robot.clock import Clock
from robopol.real_robot.driver import DeviceInfo, Driver, Reading, Status, StopLevel, Vector
from robopol.real_robot.emulators import models
from robopol.real_robot.emulators.arm import Arm


class SimulatedConfig(Config):
    """An arm in MuJoCo that moves with the clock: in real time, or in lock-step with a `VirtualClock`.

    Attributes:
        model: "so101", or the path of an MJCF file whose every joint has a position servo of its name.
            ``python -m robopol.real_robot.emulators model ur5e`` writes one ("ur5e" itself would import torch here).
        gripper: The servo that is the gripper, whose range is 0 closed to 1 open; None if there is none.
        watchdog: Seconds without a goal after which the arm brakes and holds; 0 never.
    """

    kind: Literal["simulated"] = "simulated"
    model: str = "so101"
    gripper: str | None = "gripper"
    watchdog: float = Field(0.1, ge=0)

    def build(self, clock: Clock, period: float) -> "SimulatedDriver":
        """Return the driver; the arm begins to move with ``clock`` when it is connected."""
        return SimulatedDriver(self, clock)


class SimulatedDriver(Driver):
    """Drives an `Arm`.

    Attributes:
        device: The arm, once connected; a test may look at it and push it.
        fault: Bits that the arm reports from now on; with any of `FAULTS` among them it brakes and follows nothing.
        frozen: Whether its state stays as it is, as of a controller that hangs.
    """

    def __init__(self, config: SimulatedConfig, clock: Clock) -> None:
        """See `SimulatedConfig`."""
        self.config, self.clock = config, clock
        self.device: Arm | None = None
        self.fault, self.frozen = Status(0), False
        self._armed = False
        self._fed = self._last = 0

    def connect(self) -> DeviceInfo:
        """See `Driver.connect`.

        Raises:
            RobotError: If there is no such model, or no such gripper in it.
        """
        if self.config.model == "ur5e":
            raise RobotError("run `python -m robopol.real_robot.emulators model ur5e > ur5e.xml`, and name that file")
        self.device = Arm(models.read(self.config.model), self.clock.now())
        names, gripper = self.device.names, self.config.gripper
        if gripper is not None and gripper not in names:
            raise RobotError(f"there is no servo '{gripper}' in {self.config.model}, only {', '.join(names)}")
        self._joints = np.array([name != gripper for name in names])
        self._hand = None if gripper is None else names.index(gripper)
        self._armed, self._last = False, -1
        joints = int(self._joints.sum())
        low, high = (tuple(end[self._joints].tolist()) for end in (self.device.low, self.device.high))
        return DeviceInfo(self.config.model, "simulated", joints, gripper is not None, self.config.watchdog, low, high)

    def arm(self) -> None:
        """See `Driver.arm`."""
        device = self._now()
        if self.fault:
            raise RobotError(f"the simulated arm has a fault: {self.fault!r}")
        device.goal[:] = np.clip(device.q, device.low, device.high)
        self._armed, self._fed = True, self.clock.now()

    def read(self, out: Reading) -> bool:
        """See `Driver.read`."""
        device = self._now()
        if device.t == self._last or self.frozen:
            return False
        out.t_received, out.t_device = self.clock.now(), device.t
        self._last = device.t
        q = device.q
        out.q[:], out.dq[:], out.effort[:] = q[self._joints], device.dq[self._joints], device.effort[self._joints]
        if self._hand is not None:
            low, high = device.low[self._hand], device.high[self._hand]
            out.gripper = float((q[self._hand] - low) / (high - low))
        out.status = self.fault | (Status.POWERED if self._armed else Status(0))
        return True

    def write(self, q: Vector, gripper: float) -> None:
        """See `Driver.write`."""
        device = self._now()
        goal = device.goal.copy()
        goal[self._joints] = q
        if self._hand is not None:
            low, high = device.low[self._hand], device.high[self._hand]
            goal[self._hand] = low + gripper * (high - low)
        wrong = ~((goal >= device.low) & (goal <= device.high))
        if wrong.any():
            i = int(np.argmax(wrong))
            raise RobotError(
                f"goal {goal[i]} of {device.names[i]} is not within {device.low[i]} to {device.high[i]}: "
                "nothing was sent"
            )
        if self._armed and not self.fault:
            device.goal[:] = goal
            self._fed = self.clock.now()

    def feed_watchdog(self) -> None:
        """Does nothing: `write` feeds it."""

    def stop(self, level: StopLevel) -> None:
        """See `Driver.stop`; after an ABORT goals are not followed until `arm` is called again."""
        device = self._now()
        if level is not StopLevel.REST:
            device.hold()
        self._armed = self._armed and level is not StopLevel.ABORT

    def relax(self) -> None:
        """See `Driver.relax`: no hand holds it, so it stays where it is."""
        self.stop(StopLevel.ABORT)

    def close(self) -> None:
        """See `Driver.close`."""
        self.device = None

    def _now(self) -> Arm:
        """Move the arm on to now, through the moment at which its watchdog expired or its fault stopped it."""
        if self.device is None:
            raise RobotError("the simulated arm is not connected: call connect() first")
        now = self.clock.now()
        if self.fault:
            self.device.hold()
            self._armed = False
        due = self._fed + round(self.config.watchdog * 1e9)
        if self.config.watchdog and self._armed and now > due:
            self.device.advance(due)
            self.device.hold()
        self.device.advance(now)
        return self.device
