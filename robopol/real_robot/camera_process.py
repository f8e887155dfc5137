"""The process of a camera, one for each: ``python -m robopol.real_robot.camera_process``; see `camera_desk`."""

import sys
from typing import Any

from robopol.config import parse
from robopol.errors import RobopolError
from robopol.real_robot.camera import Camera, CameraConfig
from robopol.real_robot.capture import Capture
from robopol.real_robot.channels import Channels
from robopol.real_robot.child import Lifeline, die_with_parent, say
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.rings import Memory, Ring
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.stage import Stage
from robopol.real_robot.world import World, world_type


def main() -> None:
    """Take pictures until the parent is gone, or the camera is."""
    lifeline = Lifeline()
    die_with_parent()  # at once: a camera's driver may hang in a read
    setup, clock, name = lifeline.setup, MonotonicClock(), lifeline.setup["camera"]
    robot = parse(RobotConfig, setup["robot"])
    config: CameraConfig = robot.cameras[name]
    film = Channels.open(robot, setup["channels"]).films[name]
    try:
        camera: Camera = config.build(clock, stage_of(robot, setup.get("world")))  # type: ignore[attr-defined]
        about = camera.open()
    except RobopolError as error:
        say(error=f"camera {name}: {error}")
        raise SystemExit(1) from None
    say(ready=True, about=about)
    capture = Capture(camera, config, clock, film.put, film.beat)
    try:
        while lifeline.held():
            capture.step()
    except RobopolError as error:
        print(f"camera {name}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        camera.close()


def stage_of(robot: RobotConfig, world: dict[str, Any] | None) -> Stage | None:
    """Return the scene whose world the servo process publishes; None if the arm is not simulated."""
    if world is None:
        return None
    ring = Ring(Memory(*world["memory"]), world_type(world["sizes"]))
    newest: list[World] = []

    def look() -> World | None:
        newest[:] = [World.read(row) for row in ring.take()[-1:]] or newest
        return newest[0] if newest else None

    return Stage(robot.driver.model, look)


if __name__ == "__main__":
    main()
