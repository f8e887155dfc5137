"""What turns the counts of a servo into the angles of a joint, kept in a file that knows whether it was changed."""

import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from robopol.config import Config, parse
from robopol.errors import ConfigError, RobotError
from robopol.files import whole_file

Ticks = NDArray[np.int64]
Vector = NDArray[np.float64]


class Joint(Config):
    """One servo that turns a joint: ticks = zero + sign * ticks_per_rad * angle.

    Attributes:
        name: Of the joint.
        id: Of the servo on the bus.
        sign: 1 if its count grows with the angle.
        zero: Its count at angle 0.
        ticks_per_rad: Counts a radian; 4096 / (2 pi) where it turns the joint directly.
        low: Lowest goal, ticks.
        high: Highest goal, ticks.
        offset: What the servo's own homing offset register holds; another value means that the counts mean others.
    """

    name: str
    id: int = Field(ge=0, le=252)
    sign: Literal[-1, 1] = 1
    zero: int = 2048
    ticks_per_rad: float = Field(4096 / (2 * np.pi), gt=0, allow_inf_nan=False)
    low: int
    high: int
    offset: int = 0


class Gripper(Config):
    """The servo that opens the gripper: opening 0 is ``closed``, 1 is ``open``, both goals in ticks."""

    id: int = Field(ge=0, le=252)
    closed: int
    open: int
    offset: int = 0


class Calibration(Config):
    """The servos of an arm.

    Attributes:
        name: Of the arm, as on its label.
        joints: From the base on.
        gripper: None if there is none.
    """

    name: str
    joints: tuple[Joint, ...] = Field(min_length=1)
    gripper: Gripper | None = None

    @model_validator(mode="after")
    def _check(self) -> "Calibration":
        if len(set(self.ids)) < len(self.ids):
            raise ValueError(f"each servo has an id of its own, but they are {self.ids}")
        for joint in self.joints:
            if joint.low >= joint.high:
                raise ValueError(f"{joint.name}: low {joint.low} is not below high {joint.high}")
        if self.gripper is not None and self.gripper.closed == self.gripper.open:
            raise ValueError(f"the gripper is open and closed at {self.gripper.open}")
        return self

    @property
    def ids(self) -> list[int]:
        """Ids of all servos, the gripper's last."""
        return [joint.id for joint in self.joints] + ([] if self.gripper is None else [self.gripper.id])

    @property
    def offsets(self) -> list[int]:
        """Homing offsets of all servos, the gripper's last."""
        return [joint.offset for joint in self.joints] + ([] if self.gripper is None else [self.gripper.offset])

    @property
    def hash(self) -> str:
        """SHA-256 of all of it, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.tree(), sort_keys=True).encode()).hexdigest()

    def limits(self) -> tuple[Vector, Vector]:
        """Return the lowest and highest angles of the joints (n,), rad, that are within the limits in ticks."""
        ends = np.array([[self._angle(joint, joint.low), self._angle(joint, joint.high)] for joint in self.joints])
        return ends.min(axis=1), ends.max(axis=1)

    def to_ticks(self, q: Vector, gripper: float) -> Ticks:
        """Convert a goal, and check what it became.

        Args:
            q: Joint positions (n,), rad.
            gripper: Opening, 0 to 1; ignored without a gripper.

        Returns:
            Goals of all servos, the gripper's last.

        Raises:
            RobotError: If anything is not finite or not within the limits.
        """
        if np.shape(q) != (len(self.joints),):
            raise RobotError(f"a goal of {self.name} has {len(self.joints)} joints, got shape {np.shape(q)}")
        exact = [
            joint.zero + joint.sign * joint.ticks_per_rad * float(angle)
            for joint, angle in zip(self.joints, q, strict=True)
        ]
        names, low, high = (
            list(column) for column in zip(*((j.name, j.low, j.high) for j in self.joints), strict=True)
        )
        if self.gripper is not None:
            closed, opened = self.gripper.closed, self.gripper.open
            exact.append(closed + (opened - closed) * float(gripper))
            names, low, high = [*names, "gripper"], [*low, min(closed, opened)], [*high, max(closed, opened)]
        ticks = np.rint(np.array(exact, np.float64))
        wrong = ~((ticks >= low) & (ticks <= high))  # also of what is not a number
        if wrong.any():
            i = int(np.argmax(wrong))
            raise RobotError(
                f"the goal of {names[i]} would be {ticks[i]:g} ticks, its limits are {low[i]} to {high[i]}: "
                "nothing was sent"
            )
        return ticks.astype(np.int64)

    def to_angles(self, ticks: Ticks) -> tuple[Vector, float]:
        """Convert counts of all servos to joint positions (n,), rad, and the opening, NaN without a gripper."""
        q = np.array([self._angle(joint, int(tick)) for joint, tick in zip(self.joints, ticks, strict=False)])
        if self.gripper is None:
            return q, np.nan
        return q, (int(ticks[-1]) - self.gripper.closed) / (self.gripper.open - self.gripper.closed)

    def to_speeds(self, ticks: Vector) -> Vector:
        """Convert counts a second of all servos to joint speeds (n,), rad/s."""
        return np.array([j.sign * tick / j.ticks_per_rad for j, tick in zip(self.joints, ticks, strict=False)])

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with whole_file(path) as draft:
            draft.write_text(json.dumps({"sha256": self.hash, "calibration": self.tree()}, indent=1), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "Calibration":
        """Read a file that `save` wrote.

        Raises:
            RobotError: If there is none, it is no calibration, or it was changed since it was written.
        """
        try:
            tree = json.loads(path.expanduser().read_text(encoding="utf-8"))
            said, found = tree["sha256"], parse(Calibration, tree["calibration"])
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise RobotError(f"{path} is not a calibration that can be read: {error!r}") from error
        if said != found.hash:
            raise RobotError(
                f"{path} was changed since it was written: if that was meant, set its sha256 to {found.hash}, "
                "and check every joint's sign and limits at low speed"
            )
        return found

    @staticmethod
    def _angle(joint: Joint, tick: int) -> float:
        return joint.sign * (tick - joint.zero) / joint.ticks_per_rad
