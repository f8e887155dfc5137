"""The process that observes a demonstration: ``python -m robopol.real_robot.demonstration_process``; see `supervisor`.

It stands where otherwise the process of the policy is, and says of itself what that says.
"""

import numpy as np

from robopol.config import parse
from robopol.errors import RobopolError
from robopol.real_robot.channels import Channels
from robopol.real_robot.child import Lifeline, be_polite, die_with_parent, say
from robopol.real_robot.clock import MonotonicClock, paced
from robopol.real_robot.demonstration import DemonstrationConfig, DemonstrationLoop, spec_of, without_pictures
from robopol.real_robot.observing import ArmObserver, Observer
from robopol.real_robot.policy_process import SceneObserver
from robopol.real_robot.rings import Ring
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.steps import fill, step_type

NOBODY = bytes(16)
"""The id of no policy."""


def main() -> None:
    """Observe until the parent is gone."""
    lifeline = Lifeline()
    die_with_parent()
    be_polite()
    setup, clock = lifeline.setup, MonotonicClock()
    robot, config = parse(RobotConfig, setup["robot"]), parse(DemonstrationConfig, setup["speaker"])
    channels = Channels.open(robot, setup["channels"])
    try:
        spec, world = without_pictures(spec_of(robot, config)), setup.get("world")
        observer: Observer
        if world and config.env is not None:
            observer = SceneObserver(config.env, world)
        else:
            observer = ArmObserver(robot, spec, config.fields(robot))
    except RobopolError as error:
        say(error=str(error))
        raise SystemExit(1) from None
    row_type = step_type(spec)
    ring, row = Ring(channels.steps, row_type), np.zeros(1, row_type)
    say(
        ready=True,
        id=NOBODY.hex(),
        latency=0.0,
        executed=1,
        spec=spec.tree(),
        steps=np.lib.format.dtype_to_descr(row_type),
        demonstration=True,
    )
    loop = DemonstrationLoop(spec, observer, clock, channels.ticks.take)
    for _ in paced(clock, loop.dt, lifeline.held):
        step = loop.step()
        if step is not None:
            fill(row, step)
            ring.put(row)


if __name__ == "__main__":
    main()
