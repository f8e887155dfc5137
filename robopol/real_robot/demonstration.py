"""What is observed of an arm that a person leads, where there is no policy that would say it."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from robopol.config import Config
from robopol.data.episodes import is_image
from robopol.envs.config import EnvConfig
from robopol.errors import ConfigError
from robopol.policies import PolicySpec
from robopol.real_robot.clock import Clock
from robopol.real_robot.observing import FIELDS, Observer, sizes_of
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.steps import Step
from robopol.real_robot.waypoints import waypoints_for


class DemonstrationConfig(Config):
    """What a demonstration is a demonstration of.

    Attributes:
        env: A task of the arm suite: the scene of a simulated arm, and what is observed of it, how often, and in which
            space actions are said. None: that is said by the other keys.
        control_hz: Steps a second; 10 unless given.
        action_space: What actions of the dataset mean: joint_pos, unless given, or joint_delta.
        observe: Observation -> the fields of the arm's state that it is joined of: q, dq, effort, wrench, gripper,
            tool; the joints and the gripper unless given.
    """

    env: EnvConfig | None = None
    control_hz: float | None = Field(None, gt=0)
    action_space: Literal["joint_pos", "joint_delta"] | None = None
    observe: dict[str, tuple[str, ...]] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "DemonstrationConfig":
        own = [key for key in ("control_hz", "action_space", "observe") if getattr(self, key) is not None]
        if self.env is not None and own:
            raise ValueError(f"{', '.join(own)} is said by the task: leave it out, or give it as env.options")
        return self

    def fields(self, robot: RobotConfig) -> dict[str, tuple[str, ...]]:
        """Return what is observed of a robot, where there is no task that says it."""
        return self.observe or {"state": ("q", "gripper") if robot.gripper else ("q",)}


def spec_of(robot: RobotConfig, config: DemonstrationConfig) -> PolicySpec:
    """Return the contract of a dataset of demonstrations, which a policy that is trained on it has.

    Raises:
        ConfigError: If such demonstrations cannot be given on this robot.
    """
    if config.env is not None:
        with config.env.make(1) as made:
            world = made.spec
        spec = PolicySpec(
            obs_shapes=world.obs_shapes,
            action_names=world.action_names,
            action_low=tuple(world.action_low),
            action_high=tuple(world.action_high),
            action_space=world.action_space,
            control_hz=world.control_hz,
            n_obs_steps=1,
            horizon=1,
            n_action_steps=1,
            env=config.env,
        )
    else:
        spec = _spec_of_arm(robot, config)
    waypoints_for(spec, robot)
    return spec


def without_pictures(spec: PolicySpec) -> PolicySpec:
    """Return a contract without pictures: those of all cameras are recorded as it is, and put into the dataset."""
    shapes = {key: shape for key, shape in spec.obs_shapes.items() if not is_image(key)}
    return spec.model_copy(update={"obs_shapes": shapes})


def _spec_of_arm(robot: RobotConfig, config: DemonstrationConfig) -> PolicySpec:
    sizes, hand = sizes_of(robot), robot.gripper is not None
    unknown = [part for parts in config.fields(robot).values() for part in parts if part not in FIELDS]
    if unknown:
        raise ConfigError(f"observe names {', '.join(unknown)}; there are {', '.join(FIELDS)}")
    hz, delta = config.control_hz or 10.0, config.action_space == "joint_delta"
    step = robot.joint("speed") * robot.speed / hz
    low, high = (-step, step) if delta else (robot.joint("low"), robot.joint("high"))
    names = [f"{joint.name}{' change' * delta} [rad]" for joint in robot.joints]
    return PolicySpec(
        obs_shapes={key: (sum(sizes[part] for part in parts),) for key, parts in config.fields(robot).items()},
        action_names=(*names, *["gripper opening [0..1]"] * hand),
        action_low=(*low.tolist(), *[0.0] * hand),
        action_high=(*high.tolist(), *[1.0] * hand),
        action_space=config.action_space or "joint_pos",
        control_hz=hz,
        n_obs_steps=1,
        horizon=1,
        n_action_steps=1,
    )


class DemonstrationLoop:
    """Observes at the rate of a policy that is to be, and proposes nothing.

    Attributes:
        dt: Time between two steps, ns.
    """

    def __init__(
        self, spec: PolicySpec, observer: Observer, clock: Clock, ticks: Callable[[], NDArray[np.void]]
    ) -> None:
        """Prepare.

        Args:
            spec: What is observed, and how often.
            observer: Observes it.
            clock: Time.
            ticks: Returns the rows of the servo loop since the last call.
        """
        self.dt = round(1e9 / spec.control_hz)
        self._observer, self._clock, self._ticks = observer, clock, ticks
        self._row: np.void | None = None

    def step(self) -> Step | None:
        """Observe; returns None if the servo loop has not been heard yet."""
        t, rows = self._clock.now(), self._ticks()
        if len(rows):
            self._row = rows[-1].copy()
        if (row := self._row) is None:
            return None
        return Step(t, int(row["t_received"]), int(row["epoch"]), self._observer.observe(row), {})
