"""What a policy sees of an arm, made of the rows of the servo loop; pictures are added by `sight`."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robopol.data.episodes import is_image
from robopol.envs.kinematics import ToolKinematics
from robopol.envs.ur5e import JOINT_NAMES
from robopol.errors import ConfigError
from robopol.policies import PolicySpec
from robopol.real_robot.robot import RobotConfig

Observation = dict[str, NDArray[np.float32] | NDArray[np.uint8]]

FIELDS = ("q", "dq", "effort", "wrench", "gripper", "tool")
"""What an observation may be made of: fields of a row, and ``tool``, the tool's pose (x, y, z, yaw) of a UR5e."""


class Observer(Protocol):
    """Says what is observed."""

    def observe(self, row: np.void) -> Observation:
        """Return the observation of a tick; see `robopol.real_robot.ticks`."""


def sizes_of(robot: RobotConfig) -> dict[str, int]:
    """Return how many numbers each of the `FIELDS` has."""
    n = len(robot.joints)
    return {"q": n, "dq": n, "effort": n, "wrench": 6, "gripper": 1, "tool": 4}


class ArmObserver:
    """Joins fields of the rows."""

    def __init__(self, robot: RobotConfig, spec: PolicySpec, fields: Mapping[str, tuple[str, ...]]) -> None:
        """Observe an arm.

        Args:
            robot: The robot.
            spec: What the policy looks at.
            fields: Key of the observation -> the `FIELDS` that it is joined of.

        Raises:
            ConfigError: If that is not what the policy looks at.
        """
        names = tuple(joint.name for joint in robot.joints)
        sizes = sizes_of(robot)
        keys = [key for key in spec.obs_shapes if not is_image(key)]  # pictures are for the cameras
        for key in keys:
            parts = fields.get(key, ())
            unknown = [part for part in parts if part not in FIELDS]
            if unknown:
                raise ConfigError(f"observe.{key} names {', '.join(unknown)}; there are {', '.join(FIELDS)}")
            size = sum(sizes[part] for part in parts)
            shape = tuple(spec.obs_shapes[key])
            if shape != (size,):
                raise ConfigError(
                    f"the policy looks at '{key}' of shape {shape}; observe.{key}={list(parts)} has {size} "
                    "numbers. Objects have no observer yet"
                )
        if any("tool" in parts for parts in fields.values()) and names != JOINT_NAMES:
            raise ConfigError(f"'tool' is the pose of a UR5e's tool; {robot.name} has the joints {', '.join(names)}")
        self._fields = {key: fields[key] for key in keys}
        self._kinematics = ToolKinematics()

    def observe(self, row: np.void) -> Observation:
        """See `Observer.observe`."""

        def part(name: str) -> NDArray[np.float64]:
            return self._kinematics.pose(row["q"]) if name == "tool" else np.atleast_1d(row[name])

        return {
            key: np.concatenate([part(name) for name in names]).astype(np.float32)
            for key, names in self._fields.items()
        }
