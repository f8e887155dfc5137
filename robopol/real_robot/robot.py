"""A robot, as a configuration says it: its arm, limits, timing and thresholds."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from robopol.config import Config, OneOf
from robopol.errors import RobotError
from robopol.real_robot.chunk import Gate, GateConfig
from robopol.real_robot.driver import DeviceInfo
from robopol.real_robot.geometry import GeometryConfig
from robopol.real_robot.limiter import Limiter

Vector = NDArray[np.float64]
_ROUNDING = 1e-9  # rad


class JointConfig(Config):
    """One joint.

    Attributes:
        name: As in the model; no other joint has it.
        low: Least position that is ever commanded, rad; within what the arm itself allows, with a margin.
        high: Greatest position, rad.
        speed: Greatest speed, rad/s.
        acceleration: Greatest acceleration, rad/s^2; arms brake with 0.9 of it.
        effort: Torque, N m, or current, A, above which the arm stops; None looks at none.
    """

    name: str
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    speed: float = Field(gt=0, allow_inf_nan=False)
    acceleration: float = Field(gt=0, allow_inf_nan=False)
    effort: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "JointConfig":
        if self.low >= self.high:
            raise ValueError(f"joint {self.name}: low={self.low} must be less than high={self.high}")
        return self


class GripperConfig(Config):
    """The gripper, whose opening goes from 0, closed, to 1.

    Attributes:
        speed: Greatest speed, strokes/s.
        acceleration: Greatest acceleration, strokes/s^2.
        latency: Time from a command until it holds, s.
    """

    speed: float = Field(2.0, gt=0)
    acceleration: float = Field(40.0, gt=0)
    latency: float = Field(0.0, ge=0)


class WatchConfig(Config):
    """When motion ends by itself.

    Attributes:
        tracking: Greatest distance of a joint's measured from its commanded position, rad.
        force: Greatest force at the tool, N; None looks at none.
        ticks: For how many ticks one after the other tracking, effort or force must be exceeded.
        stale: Age of the newest state at which the arm brakes and holds, s; at least three periods.
        lost: Age at which it is a fault, s.
        failures: Failed reads or writes one after the other that are a fault.
        missed: Missed deadlines of the last hundred ticks at which the arm brakes and holds.
        rejections: Refused chunks one after the other at which it does.
        silence: Time without a chunk after which an event says so, s.
        deadman: The operator's switch must have been held within so many seconds; None needs no switch.
        supervisor: Time without a sign of the program that hears what is said, after which the arm brakes and holds, s;
            it gives one some twenty times a second.
    """

    tracking: float = Field(0.35, gt=0)
    force: float | None = Field(None, gt=0)
    ticks: int = Field(5, ge=1)
    stale: float = Field(0.02, gt=0)
    lost: float = Field(0.1, gt=0)
    failures: int = Field(5, ge=1)
    missed: int = Field(10, ge=1)
    rejections: int = Field(3, ge=1)
    silence: float = Field(0.5, gt=0)
    deadman: float | None = Field(None, gt=0)
    supervisor: float = Field(0.5, gt=0)


class RobotConfig(Config):
    """A robot.

    Attributes:
        name: What it is called in records.
        driver: What speaks to the arm.
        joints: Its n joints, in the order of the driver.
        gripper: Its gripper, if it has one.
        period: T_s, time between two commands, s.
        latency: L_act, time from a command until it holds, s.
        speed: Share of the speed limits that is used at all; begin with 0.1 on a new arm.
        gate: Which chunks are taken.
        watch: When motion ends by itself.
        geometry: Its model and workspace; None looks at joints only.
        cameras: Name -> camera; a policy knows its pictures as "images.<name>".
    """

    name: str
    driver: Annotated[Any, OneOf("driver")]
    joints: tuple[JointConfig, ...] = Field(min_length=1)
    gripper: GripperConfig | None = None
    period: float = Field(gt=0)
    latency: float = Field(0.0, ge=0)
    speed: float = Field(1.0, gt=0, le=1)
    gate: GateConfig = GateConfig()
    watch: WatchConfig = WatchConfig()
    geometry: GeometryConfig | None = None
    cameras: dict[str, Annotated[Any, OneOf("camera")]] = {}  # noqa: RUF012 - pydantic copies it

    @model_validator(mode="after")
    def _of_one_arm(self) -> "RobotConfig":
        names = [joint.name for joint in self.joints]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"joints: several are named {', '.join(twice)}; each needs a name of its own")
        for key in ("low", "high"):
            given = getattr(self.gate, key)
            if given is not None and len(given) != self.columns:
                hand = " and the gripper" * (self.gripper is not None)
                raise ValueError(
                    f"gate.{key} has {len(given)} numbers; needed are {self.columns}: {', '.join(names)}{hand}"
                )
        low, high = self.bounds
        if not (low < high).all():
            column = int(np.argmin(low < high))
            name = [*names, "the gripper"][column]
            raise ValueError(
                f"gate: of {name} low={low[column]:.5g} must be less than high={high[column]:.5g}; the joint's own "
                "limits count where the gate says none"
            )
        return self

    @property
    def columns(self) -> int:
        """Columns of a chunk: the joints, and the gripper if there is one."""
        return len(self.joints) + (self.gripper is not None)

    @property
    def bounds(self) -> tuple[Vector, Vector]:
        """Least and greatest value of each column of a chunk (A,), rad and the opening: the gate's, or the joints'."""
        hand = self.columns - len(self.joints)
        low, high = np.append(self.joint("low"), np.zeros(hand)), np.append(self.joint("high"), np.ones(hand))
        gate = self.gate
        return low if gate.low is None else np.array(gate.low), high if gate.high is None else np.array(gate.high)

    @property
    def period_ns(self) -> int:
        """T_s, ns."""
        return round(self.period * 1e9)

    def heard_every(self, seconds: float) -> "RobotConfig":
        """Return the robot of a policy that speaks so often: it is not silent as long as it does."""
        silence = max(self.watch.silence, 2 * seconds)
        return self.model_copy(update={"watch": self.watch.model_copy(update={"silence": silence})})

    def joint(self, field: str) -> Vector:
        """Return one attribute of every joint, (n,)."""
        return np.array([getattr(joint, field) for joint in self.joints], np.float64)

    def check_device(self, info: DeviceInfo) -> None:
        """See that an arm is the one that is described here.

        Raises:
            RobotError: If it has other joints or another hand, or a joint may be commanded to where it does not go.
        """
        if info.joints != len(self.joints) or info.gripper != (self.gripper is not None):
            hand = {True: "a gripper", False: "no gripper"}
            raise RobotError(
                f"{info.model} has {info.joints} joints and {hand[info.gripper]}; {self.name} is said to have "
                f"{len(self.joints)} and {hand[self.gripper is not None]}"
            )
        self.check_within(f"the arm {info.serial or info.model}", info.low, info.high)

    def check_within(self, whose: str, low: Sequence[float], high: Sequence[float]) -> None:
        """See that all positions that may be commanded are such that an arm, or its model, takes.

        Args:
            whose: Whose limits these are, for what goes wrong.
            low: Lowest positions (n,), rad; nothing if they are not known.
            high: Highest positions (n,), rad.

        Raises:
            RobotError: If one is not.
        """
        for i, (joint, least, most) in enumerate(zip(self.joints, low, high, strict=False)):
            if joint.low < least - _ROUNDING or joint.high > most + _ROUNDING:
                raise RobotError(
                    f"joint {joint.name} may be commanded to {joint.low:.5g} ... {joint.high:.5g} rad, and {whose} "
                    f"takes {least:.5g} ... {most:.5g} rad: set robot.joints[{i}].low and .high within that"
                )

    def make_limiter(self) -> Limiter:
        """Return the limiter of the joints."""
        speed, acceleration = self.joint("speed") * self.speed, self.joint("acceleration")
        return Limiter(self.joint("low"), self.joint("high"), speed, acceleration, self.period)

    def make_gripper_limiter(self) -> Limiter:
        """Return the limiter of the gripper, of one entry, or of none if there is no gripper."""
        low, high = np.zeros(1), np.ones(1)
        if self.gripper is None:
            return Limiter(low[:0], high[:0], high[:0], high[:0], self.period)
        speed, acceleration = self.gripper.speed * high, self.gripper.acceleration * high
        return Limiter(low, high, speed, acceleration, self.period)

    def make_gate(self) -> Gate:
        """Return the gate for chunks."""
        return Gate(self.gate, len(self.joints), *self.bounds)
