"""Tasks of the arm suite as scenes for the simulated driver: their start, what is seen of them, their judgement."""

from pathlib import Path

import mujoco
import numpy as np

from robopol.envs.config import EnvConfig
from robopol.envs.make import TASKS, make_env
from robopol.envs.task import Task
from robopol.errors import ConfigError
from robopol.real_robot.observing import Observation
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.world import World, Worlds


class Scene:
    """One task, whose physics go on elsewhere: in a simulated driver.

    Attributes:
        task: The task; its own simulation only shows what is elsewhere.
        worlds: What is observed.
        sizes: Numbers of its positions and of its mocap bodies.
    """

    def __init__(self, env: EnvConfig) -> None:
        """Make a scene.

        Raises:
            ConfigError: If it is no task of the arm suite.
        """
        if env.id not in TASKS or env.wrappers:
            raise ConfigError(
                f"{env.id} is no task of the arm suite as it is, so it is no scene; these are {', '.join(TASKS)}"
            )
        # pictures come by cameras, which look at the simulated driver
        self.task: Task = make_env(env.id, backend="serial", **env.options | {"cameras": []}).envs[0]
        self.worlds = Worlds()
        self.sizes = [self.task.model.nq, self.task.model.nmocap]

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
        self.worlds = Worlds()
        self.worlds.add(World.of(data, 0))
        driver = robot.driver.model_copy(update={"model": str(path)})
        return robot.model_copy(update={"driver": driver})

    def observe(self, row: np.void) -> Observation:
        """See `robopol.real_robot.observing.Observer`."""
        self.show(self.worlds.at(int(row["t_received"])))
        return {"state": self.task.state(self.task.view).astype(np.float32)}

    def judge(self, world: World) -> tuple[float, bool]:
        """Judge the world after a control step; return the reward and whether the task is done."""
        self.show(world)
        verdict = self.task.judge(self.task.view, self.task.memory)
        self.task.memory[:] = verdict.memory
        return float(verdict.reward), bool(verdict.success)

    def show(self, world: World) -> None:
        """Put the task's own simulation where a world is."""
        world.show(self.task.data)
        mujoco.mj_kinematics(self.task.model, self.task.data)
