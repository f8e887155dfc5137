"""The process of the servo loop, one for each arm: ``python -m robopol.real_robot.servo_process``; see `supervisor`."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.config import parse
from robopol.errors import RobopolError, RobotError
from robopol.real_robot.channels import Channels
from robopol.real_robot.child import Lifeline, be_punctual, say
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.driver import Driver, StopLevel
from robopol.real_robot.drivers.simulated import SimulatedDriver
from robopol.real_robot.events import Code, Event, Severity
from robopol.real_robot.merging import merging_of
from robopol.real_robot.rings import Memory, Ring
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.servo import Servo
from robopol.real_robot.states import Command, State
from robopol.real_robot.world import world_type


class Desk:
    """The operator as the servo process hears them: by rings of orders; and QUIT, once nobody is there any more."""

    def __init__(self, channels: Channels, lifeline: Lifeline, clock: MonotonicClock) -> None:
        """Listen."""
        self._channels, self._lifeline, self._clock = channels, lifeline, clock
        self._held, self._attended, self._alone = 0, clock.now(), False

    def commands(self) -> Iterator[tuple[int, int]]:
        """See `robopol.real_robot.servo.Desk`."""
        for ring in (self._channels.said, self._channels.orders):
            for row in ring.take():
                yield int(row["command"]), int(row["argument"])
        if not self._alone and not self._lifeline.held():
            self._alone = True
            self._channels.report(Event(self._clock.now(), Code.SUPERVISOR_LOST, Severity.STOP))
            yield Command.QUIT, 0

    def held(self) -> int:
        """See `robopol.real_robot.servo.Desk`."""
        message = self._channels.switch.take()
        if message is not None:
            self._held = int.from_bytes(message, "little", signed=True)
        return self._held

    def attended(self) -> int:
        """See `robopol.real_robot.servo.Desk`."""
        message = self._channels.heartbeat.take()
        if message is not None:
            self._attended = int.from_bytes(message, "little", signed=True)
        return self._attended


def main() -> None:
    """Run until the operator says QUIT or the parent is gone; then the arm has been stopped."""
    lifeline = Lifeline()
    setup, clock = lifeline.setup, MonotonicClock()
    robot = parse(RobotConfig, setup["robot"])
    channels = Channels.open(robot, setup["channels"])
    driver: Driver = robot.driver.build(clock, robot.period)
    publish = channels.ticks.put
    if setup.get("world"):
        publish = _with_world(publish, driver, setup["world"])
    desk = Desk(channels, lifeline, clock)
    mailboxes = {State.RUNNING: channels.policy, State.HUMAN: channels.human}
    policy, merging = bytes.fromhex(setup["policy"]), merging_of(setup.get("merging", {"kind": "replace"}))
    told = channels.report, publish, channels.successor, merging
    try:
        servo = Servo(robot, driver, clock, desk, mailboxes, policy, *told, complain=channels.complain)
        servo.life.machine.epoch = setup.get("epoch", 0)
        servo.connect()
    except RobopolError as error:
        driver.close()
        say(error=str(error))
        raise SystemExit(1) from None
    say(ready=True, scheduling=be_punctual())
    try:
        servo.run()
    except BaseException:
        with suppress(RobotError):
            servo.life.outlet.stop(StopLevel.STOP)
        raise
    finally:
        driver.close()


def _with_world(publish: Any, driver: Driver, world: dict[str, Any]) -> Any:
    """Return what publishes a simulated world besides the rows, for policies and cameras that are to see it."""
    row_type = world_type(world["sizes"])
    ring, shown = Ring(Memory(*world["memory"]), row_type), np.zeros(1, row_type)

    def both(row: NDArray[np.void]) -> None:
        if isinstance(driver, SimulatedDriver) and driver.device is not None:
            data = driver.device.data
            shown["t"], shown["qpos"] = row["t_received"], data.qpos
            shown["mocap_pos"], shown["mocap_quat"] = data.mocap_pos, data.mocap_quat
            ring.put(shown)
        publish(row)

    return both


if __name__ == "__main__":
    main()
