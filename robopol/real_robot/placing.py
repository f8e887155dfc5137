"""Robots that are shipped: the file of their model, and the scene that a simulated one stands in."""

from pathlib import Path

from robopol.envs.config import EnvConfig
from robopol.real_robot.emulators.models import so101
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.scenes import Scene


def modelled(robot: RobotConfig, folder: Path) -> RobotConfig:
    """Return a robot with the file of its model, written into a folder where it is one of robopol's own."""
    if robot.geometry is None or robot.geometry.model not in ("ur5e_table", "so101_table"):
        return robot
    if robot.geometry.model == "so101_table":
        xml = so101(table=True)
    else:
        from robopol.envs.scene import scene_mjcf

        xml = scene_mjcf("ur5e_table", "")
    path = folder / f"{robot.geometry.model}.xml"
    path.write_text(xml, encoding="utf-8")
    return robot.model_copy(update={"geometry": robot.geometry.model_copy(update={"model": str(path)})})


def is_placed(robot: RobotConfig) -> bool:
    """Say whether a robot is simulated in the scene of a task, which it does not name itself."""
    return robot.driver.kind == "simulated" and not robot.driver.model


class Place:
    """The scene of a task around a simulated robot.

    Attributes:
        sizes: Numbers of positions and of mocap bodies of the scene.
    """

    def __init__(self, robot: RobotConfig, env: EnvConfig, folder: Path) -> None:
        """Place a robot in a task; its files go into a folder.

        Raises:
            ConfigError: If it is no task of the arm suite.
        """
        self._robot, self._scene, self._path = robot, Scene(env), folder / "scene.xml"
        self.sizes = self._scene.sizes

    def reset(self, seed: int) -> RobotConfig:
        """Draw where an episode starts; return the robot there."""
        return self._scene.reset(seed, self._path, self._robot)
