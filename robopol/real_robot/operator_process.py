"""The process that reads an operator's device: ``python -m robopol.real_robot.operator_process``; see `supervisor`."""

from typing import Annotated, Any

from robopol.config import Config, OneOf, parse
from robopol.errors import RobopolError, RobotError
from robopol.real_robot.channels import Channels
from robopol.real_robot.child import Lifeline, die_with_parent, say
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.operator import Operator
from robopol.real_robot.operator_loop import OperatorLoop
from robopol.real_robot.operators.keys import typed_at
from robopol.real_robot.robot import RobotConfig


class Seat(Config):
    """Who leads the arm.

    Attributes:
        operator: The device.
    """

    operator: Annotated[Any, OneOf("operator")]


def main() -> None:
    """Read the device until the parent is gone; whatever ends it, the switch is let go."""
    lifeline = Lifeline()
    die_with_parent()
    setup, clock = lifeline.setup, MonotonicClock()
    robot, terminal = parse(RobotConfig, setup["robot"]), setup["terminal"]
    channels = Channels.open(robot, setup["channels"])

    def typed() -> bytes | None:
        return b"" if terminal is None else typed_at(terminal)

    try:
        operator: Operator = parse(Seat, {"operator": setup["operator"]}).operator.build(robot, clock, typed)
        help = operator.connect()
    except RobopolError as error:
        say(error=str(error))
        raise SystemExit(1) from None
    say(ready=True, help=help)
    loop = OperatorLoop(
        robot, operator, clock, channels.ticks.take, channels.human.put, channels.hold_switch, channels.say
    )
    try:
        loop.run(lifeline.held)
    except RobotError as error:
        say(error=str(error))
        raise SystemExit(1) from None
    finally:
        channels.hold_switch(0)
        operator.close()


if __name__ == "__main__":
    main()
