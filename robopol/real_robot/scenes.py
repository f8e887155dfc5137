"""Tasks of the arm suite as scenes for the simulated driver: their start, what is seen of them, their judgement."""

from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from robopol.envs.config import EnvConfig
from robopol.envs.make import TASKS, make_env
from robopol.envs.task import Task
from robopol.errors import ConfigError
from robopol.real_robot.observing import Observation
from robopol.real_robot.robot import RobotConfig

Vector = NDArray[np.float64]


class World(NamedTuple):
    """All that is where it is in a scene.

    Attributes:
        qpos: MuJoCo's positions.
        mocap_pos: Positions of goals and obstacles (M, 3), m.
        mocap_quat: Their orientations (M, 4).
    """

    qpos: Vector
    mocap_pos: Vector
    mocap_quat: Vector

    @classmethod
    def of(cls, data: mujoco.MjData) -> "World":
        """Return a copy of what a simulation holds."""
        return cls(data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy())


class Scene:
    """One task, whose physics go on elsewhere: in a simulated driver.

    Attributes:
        task: The task; its own simulation only shows what is elsewhere.
        world: What is observed.
    """

    def __init__(self, env: EnvConfig) -> None:
        """Make a scene.

        Raises:
            ConfigError: If it is no task of the arm suite, or one with cameras.
        """
        if env.id not in TASKS or env.wrappers:
            raise ConfigError(
                f"{env.id} is no task of the arm suite as it is, so it is no scene; these are {', '.join(TASKS)}"
            )
        self.task: Task = make_env(env.id, backend="serial", **env.options).envs[0]
        if self.task.options.cameras:
            raise ConfigError(f"{env.id} is observed by cameras, which the simulated driver has none of")
        self.world = World.of(self.task.data)

    def reset(self, seed: int, path: Path, robot: RobotConfig) -> RobotConfig:
        """Draw where an episode starts.

        Args:
            seed: Its seed.
            path: Where the scene goes, as MJCF whose keyframe is the start.
            robot: A simulated robot.

        Returns:
            The robot, in the scene.
        """
        task = self.task
        task.reset(seed=seed)
        data = task.data
        key = {"qpos": data.qpos, "ctrl": data.ctrl}
        key |= {"mpos": data.mocap_pos, "mquat": data.mocap_quat} if task.model.nmocap else {}
        fields = " ".join(f'{name}="{" ".join(repr(float(x)) for x in value.ravel())}"' for name, value in key.items())
        end = f'<keyframe><key name="start" {fields}/></keyframe></mujoco>'
        path.write_text(task.mjcf.removesuffix("</mujoco>") + end, encoding="utf-8")
        self.world = World.of(data)
        driver = robot.driver.model_copy(update={"model": str(path)})
        return robot.model_copy(update={"driver": driver})

    def observe(self, row: np.void) -> Observation:
        """See `robopol.real_robot.observing.Observer`."""
        self.show()
        return {"state": self.task.state(self.task.view).astype(np.float32)}

    def judge(self) -> tuple[float, bool]:
        """Judge the world after a control step; return the reward and whether the task is done."""
        self.show()
        verdict = self.task.judge(self.task.view, self.task.memory)
        self.task.memory[:] = verdict.memory
        return float(verdict.reward), bool(verdict.success)

    def show(self) -> None:
        """Put the task's own simulation where the world is."""
        data = self.task.data
        data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = self.world
        mujoco.mj_kinematics(self.task.model, data)
