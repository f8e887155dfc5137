"""The expert of Push-T: one straight push after another, each chosen with a quasi-static model of the block."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopol.envs.experts.expert import Expert, advance
from robopol.envs.gripper import FINGER_HALF_SIZE
from robopol.envs.push_t import BAR, STEM, WIDTH, PushT, distance, to_frame
from robopol.envs.task import Task

Array = NDArray[np.float64]

_STEP = 0.012  # m a control step while the tool pushes
_TRAVEL = 0.035  # m a control step while the tool is above the block
_LOW, _HIGH = 0.012, 0.05  # m of the fingertips above the table while they push, and above the block
_EASE = 0.75  # part of the way to its aim that the tool goes at most in a control step; 1 rings if actions are late
_GAP = 0.012  # m from the block at which the tool comes down
_OVERHEAD = 8.0  # control steps that a change of the contact costs besides the way
_GAIN = 0.0006  # m by which a push must be able to bring the block closer to go on
_BESIDE = 0.012  # m from the block's axis at which the first contact shows the way

_HALF = np.array([FINGER_HALF_SIZE[0], 2 * FINGER_HALF_SIZE[1]])  # m, of the closed fingertips along x and y
_CLEAR = float(np.linalg.norm(_HALF)) + 0.002  # m from the tool's centre to the parts that it does not push
_FLAT = 0.03  # rad of tilt below which a side of the fingertips lies flat against the block
_RATIO = 1.57 * WIDTH  # m, largest torque over largest force of the friction with the table, measured
_CONE = float(np.cos(np.deg2rad(33)))  # of the angle between force and normal up to which the contact sticks
_ANGLES = np.deg2rad(np.linspace(-20, 20, 5))  # between a push and the normal
_PIECE = 0.002  # m of a push that the model takes at once
_PIECES = 40  # of the longest push


class Contacts(NamedTuple):
    """Places on the block's faces, in the block's frame; K of them."""

    normal: Array
    """Outward unit normals, (K, 2)."""
    tangent: Array
    """Unit tangents, (K, 2): the normals turned by 90 degrees."""
    offset: Array
    """Distances of the faces from the origin, (K,) m."""
    ends: Array
    """Where the faces begin and end along the tangents, (K, 2) m."""
    along: Array
    """Where the middle of the tool is along the tangents, (K,) m."""

    def pick(self, index: int) -> "Contacts":
        """Return one of the places."""
        return Contacts(*(part[index : index + 1] for part in self))

    def tool(self, tilt: float, gap: float = 0.0) -> Array:
        """Return where the middle of the tool is.

        Args:
            tilt: Yaw of the tool in the block's frame, rad.
            gap: Distance of the tool from the face, m.

        Returns:
            Points, (K, 2) m.
        """
        reach = np.abs(self.normal @ _rotation(tilt)) @ _HALF
        return (self.offset + reach + gap)[:, None] * self.normal + self.along[:, None] * self.tangent

    def touch(self, tilt: float) -> Array:
        """Return where the tool touches the face.

        A tilted tool touches with a corner. A flat one touches with a side, along which the pressure goes as
        near to the block's centre as it can.

        Args:
            tilt: Yaw of the tool in the block's frame, rad.

        Returns:
            Points, (K, 2) m.
        """
        normal, tangent = self.normal @ _rotation(tilt), self.tangent @ _rotation(tilt)
        corner = self.along - (np.sign(normal) * tangent) @ _HALF
        half = np.abs(tangent) @ _HALF
        flat = np.clip(0.0, self.along - half, self.along + half)
        where = np.where(np.abs(normal).min(axis=1) < _FLAT, flat, corner)
        where = np.clip(where, self.ends[:, 0], self.ends[:, 1])
        return self.offset[:, None] * self.normal + where[:, None] * self.tangent


class PushTExpert(Expert):
    """Chooses the push that brings the block closer to the mark fastest, pushes while it helps, and repeats.

    A push is a contact of the fingertips with a face and a straight motion from there; `foresee` says what it
    does to the block. Its direction is chosen anew at every control step, from where the block is. The tool
    changes to another contact above the block. The first contact is on the side of the way.
    """

    def start(self, env: Task) -> None:
        """Forget the last push."""
        self._contact = _CONTACTS.pick(0)
        self._phase = "choose"

    def plan(self, env: PushT) -> tuple[Array, float]:
        """Take one step of a push, or of the way from one push to the next."""
        tool = env.tool_pose()
        if self._phase == "push":
            aim = self._push(env, tool)
            if aim is not None:
                return _next(env, aim, _LOW, _STEP)
            self._phase = "leave"
        if self._phase == "leave":
            if tool[2] < _HIGH - 0.006:
                return _next(env, self._beside(env, tool), _HIGH, _STEP)
            self._phase = "choose"
        if self._phase == "choose":
            self._choose(env, tool)
            self._phase = "come"
        aim = self._beside(env, tool)
        if np.linalg.norm(aim - tool[:2]) > 0.008:
            return _next(env, aim, _HIGH, _TRAVEL)
        if tool[2] < _LOW + 0.006:
            self._phase = "push"
        return _next(env, aim, _LOW, _STEP)

    def _beside(self, env: PushT, tool: Array) -> Array:
        """Return the point next to the contact at which the tool comes down and goes up, (2,) m."""
        block = env.block
        return block[:2] + _rotation(block[2]) @ self._contact.tool(tool[3] - block[2], _GAP)[0]

    def _choose(self, env: PushT, tool: Array) -> None:
        """Choose the contact from which the block comes closer fastest, on the side of the way at first."""
        block = env.block
        tilt = tool[3] - block[2]
        ahead = foresee(block, env.goal, _CONTACTS, tilt)
        gain = distance(block, env.goal) - ahead
        way = np.linalg.norm(_CONTACTS.tool(tilt, _GAP) - to_frame(tool[:2], block), axis=1)
        steps = np.arange(1, _PIECES + 1) * _PIECE / _STEP
        speed = gain / (_OVERHEAD + way[:, None, None] / _TRAVEL + steps)
        if env.memory[0] == 0:
            speed[_CONTACTS.tool(tilt)[:, 1] * (1 if self.way == 0 else -1) < _BESIDE] = -np.inf
        self._contact = _CONTACTS.pick(int(speed.max(axis=(1, 2)).argmax()))

    def _push(self, env: PushT, tool: Array) -> Array | None:
        """Return the point to push to, (2,) m; None if the tool left the face or no push from here is worth it."""
        block, goal = env.block, env.goal
        tilt = tool[3] - block[2]
        along = self._contact.tangent @ to_frame(tool[:2], block)
        self._contact = contact = self._contact._replace(along=along)
        if not contact.ends[0, 0] <= along[0] <= contact.ends[0, 1]:
            return None
        ahead = foresee(block, goal, contact, tilt)[0]
        angle, pieces = np.unravel_index(ahead.argmin(), ahead.shape)
        if distance(block, goal) - ahead[angle, pieces] < _GAIN:
            return None
        step = min(_STEP, _PIECE * (pieces + 1)) / _EASE
        place = contact.tool(tilt)[0] - step * _rotation(float(_ANGLES[angle])) @ contact.normal[0]
        return block[:2] + _rotation(block[2]) @ place


def foresee(block: Array, goal: Array, contacts: Contacts, tilt: float) -> Array:
    """Foresee straight pushes of the block.

    Friction with the table turns motion into force as on an ellipsoid: with the contact at r from the centre
    of mass and sticking, a tool that moves by u turns the block by ``(r x u) / (c^2 + |r|^2)`` and moves its
    centre by what is left of u; the force is along the motion of the centre (Lynch, Maekawa and Tanie,
    "Manipulation and active sensing by pushing using tactile feedback", IROS 1992). c is the ratio of the
    largest torque of the friction to its largest force.

    Args:
        block: Pose of the block, (3,).
        goal: Pose of the mark, (3,).
        contacts: Where the tool pushes; K places.
        tilt: Yaw of the tool in the block's frame, rad.

    Returns:
        Distance of the block from the mark, (K, angles of the push, pieces of it) m; infinite from where on
        the contact would slip.
    """
    turn = _rotation(block[2])
    arm = (contacts.touch(tilt) @ turn.T)[:, None]
    inward = -(contacts.normal @ turn.T)[:, None]
    motion = _PIECE * _turned(inward, _ANGLES)
    pose = np.broadcast_to(block, (*motion.shape[:2], 3)).copy()
    sticks = np.ones(motion.shape[:2], dtype=bool)
    ahead = np.empty((*motion.shape[:2], _PIECES))
    denominator = _RATIO**2 + (arm**2).sum(axis=-1)
    for piece in range(_PIECES):
        angle = (arm[..., 0] * motion[..., 1] - arm[..., 1] * motion[..., 0]) / denominator
        shift = motion + angle[..., None] * np.stack([arm[..., 1], -arm[..., 0]], axis=-1)
        sticks &= (shift * inward).sum(axis=-1) >= _CONE * np.linalg.norm(shift, axis=-1)
        pose[..., :2] += shift
        pose[..., 2] += angle
        arm, inward = _turned(arm, angle), _turned(inward, angle)
        ahead[..., piece] = np.where(sticks, distance(pose, goal), np.inf)
    return ahead


def _turned(vectors: Array, angle: Array) -> Array:
    """Return vectors, (..., 2), turned by angles, (...)."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _rotation(angle: float) -> Array:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _next(env: PushT, aim: Array, height: float, step: float) -> tuple[Array, float]:
    """Return the reference that is a step closer to a point and a height, with the tool turned to yaw 0."""
    reference = env.commanded_pose()
    point = advance(reference[:2], _EASE * (aim - reference[:2]), step)
    rise = np.clip(_EASE * (height - reference[2]), -0.03, 0.03)
    return np.array([*point, reference[2] + rise, 0.5 * reference[3]]), 0.0


def _contacts() -> Contacts:
    """Return contacts every 6 mm along every face, where the tool has room."""
    rows = []
    for (x0, y0, x1, y1), other in ((BAR, STEM), (STEM, BAR)):
        sides = ((1, 0, x1, y0, y1), (-1, 0, -x0, -y1, -y0), (0, 1, y1, -x1, -x0), (0, -1, -y0, x0, x1))
        for nx, ny, offset, begin, end in sides:
            for along in np.linspace(begin, end, round((end - begin) / 0.006) + 1)[1:-1]:
                place = (offset + _HALF.min()) * np.array([nx, ny]) + along * np.array([-ny, nx])
                away = place - np.clip(place, other[:2], other[2:])
                if np.linalg.norm(away) > _CLEAR:
                    rows.append((nx, ny, -ny, nx, offset, begin, end, along))
    table = np.array(rows, dtype=np.float64)
    return Contacts(table[:, :2], table[:, 2:4], table[:, 4], table[:, 5:7], table[:, 7])


_CONTACTS = _contacts()
