"""A leader that nobody holds: its joints swing, so that following can be tried without a second arm."""

from typing import Literal

import numpy as np
from pydantic import Field

from robopol.config import Config
from robopol.errors import RobotError
from robopol.real_robot.clock import Clock
from robopol.real_robot.driver import DeviceInfo, Driver, Reading, StopLevel, Vector


class SwayingConfig(Config):
    """Joints that swing by sines, each a little faster than the one before; it can be read only.

    Attributes:
        joints: How many.
        amplitude: rad.
        period: Of the first joint, s.
        gripper: Whether there is a gripper, which opens and closes.
    """

    kind: Literal["swaying"] = "swaying"
    joints: int = Field(5, ge=1)
    amplitude: float = Field(0.3, ge=0)
    period: float = Field(6.0, gt=0)
    gripper: bool = True

    def build(self, clock: Clock, period: float) -> "SwayingDriver":
        """Return the driver; the joints swing with ``clock``."""
        return SwayingDriver(self, clock)


class SwayingDriver(Driver):
    """See `SwayingConfig`; joint k swings by amplitude sin(2 pi (1 + k / 10) t / period)."""

    def __init__(self, config: SwayingConfig, clock: Clock) -> None:
        """Swing from now on."""
        self.config, self._clock, self._start = config, clock, clock.now()
        self._last = -1

    def connect(self) -> DeviceInfo:
        """See `Driver.connect`."""
        return DeviceInfo("swaying", "simulated", self.config.joints, self.config.gripper, 0.0)

    def arm(self) -> None:
        """Refuses: it follows nothing."""
        raise RobotError("a swaying arm follows nothing: it is a leader to try")

    def read(self, out: Reading) -> bool:
        """See `Driver.read`."""
        now, config = self._clock.now(), self.config
        if now == self._last:
            return False
        self._last = out.t_received = out.t_device = now
        turns = 2 * np.pi * (1 + np.arange(config.joints) / 10) / config.period
        phase = turns * (now - self._start) * 1e-9
        out.q[:], out.dq[:] = config.amplitude * np.sin(phase), config.amplitude * turns * np.cos(phase)
        out.gripper = float(0.5 - 0.5 * np.cos(phase[0])) if config.gripper else np.nan
        return True

    def write(self, q: Vector, gripper: float) -> None:
        """Refuses, as `arm` does."""
        self.arm()

    def feed_watchdog(self) -> None:
        """Does nothing."""

    def relax(self) -> None:
        """Does nothing: nothing holds it."""

    def stop(self, level: StopLevel) -> None:
        """Does nothing: it cannot be stopped."""

    def close(self) -> None:
        """See `Driver.close`."""
