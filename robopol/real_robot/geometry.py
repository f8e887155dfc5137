"""Where the arm is in space: how far inside its workspace, and how far from itself and from what stands around."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from robopol.config import Config
from robopol.errors import ConfigError

Vector = NDArray[np.float64]
Triple = tuple[float, float, float]
_UNIT = 1e-3  # of the length of a direction; by as much of their distance from the origin margins are wrong


def _unit(direction: Triple) -> Triple:
    length = float(np.linalg.norm(direction))
    if not abs(length - 1) <= _UNIT:  # nor may it be no number
        said = f"{list(direction)} has length {length:.4g}; needed is a direction, of length 1"
        unit = [round(x / length, 4) for x in direction] if 0 < length < np.inf else None
        raise ValueError(f"{said}: say {unit}" if unit else said)
    return direction


Direction = Annotated[Triple, AfterValidator(_unit)]
"""x, y and z of a vector of length 1."""


class BoxConfig(Config):
    """Points that stay in a box.

    Attributes:
        sites: Sites of the model, one at least.
        low: Least x, y and z in the model's world frame, m.
        high: Greatest x, y and z, m; each above the least.
    """

    kind: Literal["box"] = "box"
    sites: tuple[str, ...] = Field(min_length=1)
    low: Triple
    high: Triple

    @model_validator(mode="after")
    def _ordered(self) -> "BoxConfig":
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low={list(self.low)} must be less than high={list(self.high)}, in x, y and z")
        return self


class HalfSpaceConfig(Config):
    """Points that stay on one side of a plane: normal . p >= offset.

    Attributes:
        sites: Sites of the model, one at least.
        normal: Out of the forbidden side, of length 1, world frame.
        offset: m.
    """

    kind: Literal["half_space"] = "half_space"
    sites: tuple[str, ...] = Field(min_length=1)
    normal: Direction
    offset: float = Field(allow_inf_nan=False)


class ConeConfig(Config):
    """A direction that stays within a cone.

    Attributes:
        site: A site of the model, whose z axis it is.
        around: Axis of the cone, of length 1, world frame.
        angle: Greatest angle between the two, rad.
    """

    kind: Literal["cone"] = "cone"
    site: str
    around: Direction
    angle: float = Field(gt=0, le=np.pi)


Constraint = Annotated[BoxConfig | HalfSpaceConfig | ConeConfig, Field(discriminator="kind")]


class GeometryConfig(Config):
    """The arm's model and the space it keeps to.

    Distances are looked at between geoms that can collide (contype or conaffinity not 0) of the arm's moving bodies,
    and between these and those that stand still; not between bodies that are fixed to each other, nor between a body
    and the one that it hangs on, the world excepted.

    Attributes:
        model: MJCF file whose joints have the names of the robot's; ``ur5e_table`` is the arm suite's,
            ``so101_table`` the emulated SO-101 on a table.
        workspace: Boxes, half-spaces and cones, all of which must hold.
        apart: Pairs of bodies between which no distance is looked at; ``world`` is what stands around.
        slow: Below this distance speeds are scaled down, m.
        stop: The arm stops before a distance falls below this, m.
    """

    model: str
    workspace: tuple[Constraint, ...] = ()
    apart: tuple[tuple[str, str], ...] = ()
    slow: float = Field(0.05, gt=0)
    stop: float = Field(0.02, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "GeometryConfig":
        if self.stop >= self.slow:
            raise ValueError(f"stop={self.stop} must be less than slow={self.slow}")
        return self


class Clearance(NamedTuple):
    """How far joints are from what is forbidden.

    Attributes:
        margins: Of each constraint of the workspace and each of its sites (W,), m; of a cone the difference of cosines;
            negative outside.
        distances: Of each pair of geoms (P,), m; at most `GeometryConfig.slow`.
    """

    margins: Vector
    distances: Vector


class Geometry:
    """Forward kinematics and signed distances of an arm.

    Attributes:
        config: See `GeometryConfig`.
        pairs: The pairs of geoms whose distances are looked at (P, 2).
        low: Least positions of the model's joints (n,), rad; -inf without a limit.
        high: Greatest positions (n,), rad.
    """

    def __init__(self, config: GeometryConfig, joints: tuple[str, ...]) -> None:
        """Read the model.

        Args:
            config: What is looked at.
            joints: Names of the robot's joints, in its order.

        Raises:
            ConfigError: If there is no such file, or no such joint, site or body in it.
        """
        self.config = config
        try:
            self.model = mujoco.MjModel.from_xml_path(config.model)
        except ValueError as error:
            raise ConfigError(f"MuJoCo cannot read the robot's geometry.model {config.model}: {error}") from error
        self.data = mujoco.MjData(self.model)
        try:
            moving = [self.model.joint(name) for name in joints]
            self._sites = [
                [self.model.site(name).id for name in ((rule.site,) if isinstance(rule, ConeConfig) else rule.sites)]
                for rule in config.workspace
            ]
            apart = {frozenset(self.model.body(name).id for name in pair) for pair in config.apart}
        except KeyError as error:
            raise ConfigError(f"{Path(config.model).name} lacks what the robot names: {error.args[0]}") from error
        limited = self.model.jnt_limited[[joint.id for joint in moving]].astype(bool)
        ends = self.model.jnt_range[[joint.id for joint in moving]]
        self.low, self.high = np.where(limited, ends[:, 0], -np.inf), np.where(limited, ends[:, 1], np.inf)
        self._qpos = np.array([joint.qposadr[0] for joint in moving])
        self.pairs = self._pairs(np.array([self.model.jnt_bodyid[joint.id] for joint in moving]), apart)
        self._reach = self.model.geom_rbound[self.pairs].sum(1)
        plane = self.model.geom_type[self.pairs] == mujoco.mjtGeom.mjGEOM_PLANE
        self._reach[plane.any(1)] = np.inf  # a plane's bounding sphere is said to be 0
        self._segment = np.zeros(6)

    def look(self, q: Vector) -> Clearance:
        """Return the clearance at joint positions (n,), rad."""
        data = self.data
        data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self.model, data)
        margins = [self._margins(rule, sites) for rule, sites in zip(self.config.workspace, self._sites, strict=True)]
        far = self.config.slow
        apart = data.geom_xpos[self.pairs[:, 0]] - data.geom_xpos[self.pairs[:, 1]]
        near = np.flatnonzero(np.linalg.norm(apart, axis=1) - self._reach < far)
        distances = np.full(len(self.pairs), far)
        for i in near:
            a, b = self.pairs[i]
            distances[i] = mujoco.mj_geomDistance(self.model, data, int(a), int(b), far, self._segment)
        return Clearance(np.concatenate([*margins, np.zeros(0)]), distances)

    def _margins(self, rule: Config, sites: list[int]) -> Vector:
        """Return how far each site is inside a constraint."""
        if isinstance(rule, ConeConfig):
            axis = self.data.site_xmat[sites[0]].reshape(3, 3)[:, 2]
            return np.array([axis @ np.array(rule.around) - np.cos(rule.angle)])
        points = self.data.site_xpos[sites]
        if isinstance(rule, HalfSpaceConfig):
            side: Vector = points @ np.array(rule.normal) - rule.offset
            return side
        assert isinstance(rule, BoxConfig)
        inside: Vector = np.minimum(points - np.array(rule.low), np.array(rule.high) - points).min(1)
        return inside

    def _pairs(self, roots: NDArray[np.int64], apart: set[frozenset[int]]) -> NDArray[np.int64]:
        """List the pairs of geoms that may come near each other by the arm's motion."""
        model = self.model
        arm, still = set(roots.tolist()), {0}
        for body in range(1, model.nbody):  # a body comes after the one that it hangs on
            parent = int(model.body_parentid[body])
            if parent in arm:
                arm.add(body)
            elif body not in arm and parent in still and model.body_dofnum[body] == 0:
                still.add(body)
        solid = np.flatnonzero((model.geom_contype != 0) | (model.geom_conaffinity != 0))
        found = []
        for i, a in enumerate(solid.tolist()):
            for b in solid[i + 1 :].tolist():
                first, second = int(model.geom_bodyid[a]), int(model.geom_bodyid[b])
                moves = first in arm or second in arm
                known = {first, second} <= arm | still
                joined = model.body_weldid[first] == model.body_weldid[second]
                for body, other in ((first, second), (second, first)):
                    joined |= other != 0 and int(model.body_parentid[body]) == other
                if moves and known and not joined and frozenset({first, second}) not in apart:
                    found.append((a, b))
        return np.array(found, np.int64).reshape(-1, 2)
