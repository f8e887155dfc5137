"""The scene of a simulated arm, as cameras see it; it is rendered as in the arm suite, where policies were trained."""

from collections.abc import Callable
from typing import Any

import mujoco

from robopol.errors import RobotError
from robopol.real_robot.camera import Frame
from robopol.real_robot.emulators import models
from robopol.real_robot.world import World


class Stage:
    """Takes pictures of a scene whose physics go on elsewhere.

    Attributes:
        world: Returns where everything is now; None if that is not known yet.
        sizes: Numbers of its positions and of its mocap bodies.
    """

    def __init__(self, model: str, world: Callable[[], World | None]) -> None:
        """Read a scene.

        Args:
            model: The model of the simulated driver: a name, or the path of an MJCF file.
            world: See the attribute.

        Raises:
            RobotError: If there is no such model, or MuJoCo cannot read it.
        """
        try:
            self._model = mujoco.MjModel.from_xml_string(models.read(model))
        except ValueError as error:
            raise RobotError(f"MuJoCo cannot read {model}: {error}") from error
        self._data = mujoco.MjData(self._model)
        self._renderers: dict[tuple[int, int], Any] = {}
        self.world = world
        self.sizes = [self._model.nq, self._model.nmocap]

    @property
    def cameras(self) -> list[str]:
        """The names of its cameras."""
        return [self._model.camera(i).name for i in range(self._model.ncam)]

    def start(self, t: int) -> World:
        """Return the world in which the scene begins, in its keyframe if it has one, as that of time ``t``, ns."""
        data = mujoco.MjData(self._model)
        if self._model.nkey:
            mujoco.mj_resetDataKeyframe(self._model, data, 0)
        return World.of(data, t)

    def prepare(self, size: tuple[int, int]) -> None:
        """Get ready to take pictures of a size, which takes seconds the first time.

        Raises:
            EnvError: If nothing can be rendered on this machine.
        """
        if size not in self._renderers:
            from robopol.envs.rendering import Renderer  # by this torch is imported, which the servo loop must not

            self._renderers[size] = Renderer(self._model, *size)

    def look(self, camera: str, size: tuple[int, int]) -> Frame | None:
        """Take a picture.

        Args:
            camera: One of `cameras`.
            size: Height and width, pixels.

        Returns:
            The picture, of the time of the world that it shows; None if that is not known yet.

        Raises:
            EnvError: If nothing can be rendered on this machine.
        """
        world = self.world()
        if world is None:
            return None
        self.prepare(size)
        world.show(self._data)
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        return Frame(world.t, self._renderers[size].render(self._data, camera))

    def close(self) -> None:
        """Free what rendering holds."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
