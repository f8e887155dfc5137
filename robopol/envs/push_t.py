"""Push-T: push a T-shaped block onto the mark of a T with the closed fingertips."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from robopol.envs.arrays import Array, arrays
from robopol.envs.rectangles import Rectangle, overlap
from robopol.envs.task import Task, Verdict, quaternion
from robopol.envs.view import View

WIDTH = 0.04
"""Width of the bar and of the stem, m; the bar is 4, the stem 3 widths long."""
HEIGHT = 0.03
"""Height of the block, m."""
SUCCESS_COVERAGE = 0.9
"""Part of the mark that the block covers on success."""

_CENTROID = -6 / 7 * WIDTH  # x of the centre of area from the bar's centre
BAR: Rectangle = (-WIDTH / 2 - _CENTROID, -2 * WIDTH, WIDTH / 2 - _CENTROID, 2 * WIDTH)
"""The bar in the block's frame: origin in the centre of area (and mass), x from the stem to the bar."""
STEM: Rectangle = (-3.5 * WIDTH - _CENTROID, -WIDTH / 2, -WIDTH / 2 - _CENTROID, WIDTH / 2)
"""The stem in the block's frame."""
AREA = 7 * WIDTH**2
"""Area of the T, m^2."""
GYRATION_SQUARED = (1 / 12) * WIDTH**2 * (4 * 17 + 3 * 10) / 7 + (12 / 49) * (2 * WIDTH) ** 2
"""Mean squared distance of the points of the T from its centre of area, m^2."""

_GOAL = np.array([0.47, 0.0, 0.0])
_GOAL_JITTER = np.array([0.01, 0.01, 0.1])
_START_RANGE = np.array([0.06, 0.06, np.pi / 4])
_START_COVERAGE = 0.6  # most that is covered at the start
_TOOL = np.array([0.27, 0.0, 0.08, 0.0])
_MOVED = 0.002  # m of root mean square motion of the block's points after which it has been pushed


class PushT(Task):
    """Push a T-shaped block onto a mark of its shape, as in Push-T but in space and with friction.

    The block starts up to 6 cm (along x and y) and 45 degrees from the mark. Its frame has its origin in the
    centre of area and x from the stem to the bar; poses are x, y and yaw of that frame, the mark's too. The
    mark is jittered by up to 1 cm and 0.1 rad.

    Reward of a step: the increase of the coverage, as far as `SUCCESS_COVERAGE`, in parts of what was to be
    covered at the reset, so that the rewards of an episode without its success sum to at most 1; success adds
    1. A block that does not overlap the mark gets no reward for coming closer.
    Success: the block covers `SUCCESS_COVERAGE` of the mark. Way: the side of the block's own axis, seen from
        the stem to the bar, from which the tool first moves it ("left" is the block's +y).

    The task follows Push-T of Chi et al., "Diffusion Policy: Visuomotor policy learning via action diffusion",
    RSS 2023 (after Florence et al., "Implicit behavioral cloning", CoRL 2021), whose T has these proportions.
    """

    id = "robopol/PushT-v0"
    default_max_episode_steps = 150
    way_names = ("left", "right")
    object_state_names = (
        "block x [m]",
        "block y [m]",
        "sin block yaw",
        "cos block yaw",
        "goal x [m]",
        "goal y [m]",
        "sin goal yaw",
        "cos goal yaw",
    )
    memory_size = 6  # way + 1, coverage that counts, what was to be covered at the reset, block at the reset (3)

    def objects(self) -> str:
        """Write the block and the mark."""
        block = _boxes(HEIGHT / 2, 'class="object" material="blue" density="700"')
        mark = _boxes(0.0004, 'class="mark" material="goal"')
        return (
            f'<body name="block" pos="0.47 0 {HEIGHT / 2}"><freejoint name="block"/>{block}</body>'
            f'<body name="goal" mocap="true" pos="0.47 0 0.0005">{mark}</body>'
        )

    def place(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
        """Draw the mark and the block; at most 0.6 of the mark is covered."""
        goal = _GOAL + rng.uniform(-1.0, 1.0, 3) * _GOAL_JITTER
        block = goal
        while coverage(block, goal) > _START_COVERAGE:
            block = goal + rng.uniform(-1.0, 1.0, 3) * _START_RANGE
        self.data.mocap_pos[0, :2] = goal[:2]
        self.data.mocap_quat[0] = quaternion(goal[2])
        self.put("block", block[:2], block[2])
        tool = _TOOL.copy()
        tool[:2] += rng.uniform(-0.01, 0.01, 2)
        return tool, 0.0

    def observe(self, view: View) -> Array:
        """Return the poses of the block and of the mark."""
        block, goal = _block(view), _goal(view)
        xp = arrays(block)
        turns = [turn(pose[..., 2:]) for pose in (block, goal) for turn in (xp.sin, xp.cos)]
        return xp.concatenate((block[..., :2], *turns[:2], goal[..., :2], *turns[2:]), axis=-1)

    def begin(self, view: View) -> Array:
        """Remember the coverage and where the block is."""
        block = _block(view)
        counted = coverage(block, _goal(view)).clip(max=SUCCESS_COVERAGE)[..., None]
        return arrays(block).concatenate((0.0 * counted, counted, SUCCESS_COVERAGE - counted, block), axis=-1)

    def judge(self, view: View, memory: Array) -> Verdict:
        """Measure the coverage, and from which side the block was moved if it just was."""
        xp = arrays(memory)
        way, last, needed = (memory[..., i] for i in range(3))
        block = _block(view)
        covered = coverage(block, _goal(view))
        counted = covered.clip(max=SUCCESS_COVERAGE)
        pushed = (way == 0) & (distance(block, memory[..., 3:]) > _MOVED)
        beside = to_frame(view.tool_pose()[..., :2], block)[..., 1]
        way = xp.where(pushed, xp.where(beside > 0, 1.0, 2.0), way)
        kept = xp.concatenate((xp.stack([way, counted, needed], axis=-1), memory[..., 3:]), axis=-1)
        return Verdict((counted - last) / needed, covered >= SUCCESS_COVERAGE, kept, way - 1)

    @property
    def block(self) -> NDArray[np.float64]:
        """Pose of the block, (3,): x, y in m, yaw in rad."""
        return _block(self.view)

    @property
    def goal(self) -> NDArray[np.float64]:
        """Pose of the mark, (3,): x, y in m, yaw in rad."""
        w, _, _, z = self.data.mocap_quat[0]
        return np.append(self.data.mocap_pos[0, :2], 2.0 * np.arctan2(z, w))


def _block(view: View) -> Array:
    """Return the pose of the block, (..., 3)."""
    position = view.position("block")
    return arrays(position).concatenate((position[..., :2], view.yaw("block")[..., None]), axis=-1)


def _goal(view: View) -> Array:
    """Return the pose of the mark, (..., 3)."""
    position, turn = view.position("goal"), view.quaternion("goal")
    xp = arrays(position)
    return xp.concatenate((position[..., :2], 2.0 * xp.arctan2(turn[..., 3:], turn[..., :1])), axis=-1)


def coverage(block: Array, goal: Array) -> Array:
    """Return the part of the mark's area that the block covers, exactly.

    On the CPU each pair of poses is measured by cutting polygons, which is the fastest there; tensors by
    `rectangles.overlap`, which has no branches. They agree but for rounding.

    Args:
        block: Pose of the block, (..., 3): x, y in m, yaw in rad.
        goal: Pose of the mark, (..., 3).

    Returns:
        Area of the intersection over the area of the T, (...) 0 to 1.
    """
    place, turn = to_frame(block[..., :2], goal), block[..., 2] - goal[..., 2]
    # The rectangles of a T do not overlap, so its area is the sum of theirs.
    if isinstance(block, torch.Tensor):
        pose = torch.concatenate((place, turn[..., None]), dim=-1)
        area = sum(overlap(part, pose, window) for part in (BAR, STEM) for window in (BAR, STEM))
        return (area / AREA).clip(max=1.0)
    if block.ndim > 1:
        return np.array([coverage(*pair) for pair in zip(block, goal, strict=True)])
    x, y = place.tolist()
    cos, sin = math.cos(turn), math.sin(turn)
    area = 0.0
    for x0, y0, x1, y1 in (BAR, STEM):
        corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
        polygon = [(x + cos * px - sin * py, y + sin * px + cos * py) for px, py in corners]
        area += clipped_area(polygon, BAR) + clipped_area(polygon, STEM)
    return np.float64(min(area / AREA, 1.0))


def clipped_area(polygon: list[tuple[float, float]], window: Rectangle) -> float:
    """Return the area of a convex polygon within an upright rectangle.

    The polygon is cut by one side of the rectangle after the other (Sutherland and Hodgman, "Reentrant
    polygon clipping", CACM 1974), then measured by the shoelace formula.

    Args:
        polygon: Its corners (x, y) in order.
        window: The rectangle.

    Returns:
        Area, at least 0.
    """
    for axis, bound, sign in ((0, window[0], 1), (1, window[1], 1), (0, window[2], -1), (1, window[3], -1)):
        kept: list[tuple[float, float]] = []
        for start, end in zip(polygon[-1:] + polygon[:-1], polygon, strict=True):
            inside, next_inside = sign * (start[axis] - bound), sign * (end[axis] - bound)
            if inside * next_inside < 0:
                part = inside / (inside - next_inside)
                kept.append((start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])))
            if next_inside >= 0:
                kept.append(end)
        polygon = kept
    pairs = zip(polygon[-1:] + polygon[:-1], polygon, strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2


def distance(first: Array, second: Array) -> Array:
    """Return the root mean square distance between the points of a T in two poses.

    Its square is the squared distance of the centres plus ``2 (1 - cos(difference of the yaws))`` times
    `GYRATION_SQUARED`.

    Args:
        first: Poses, (..., 3): x, y in m, yaw in rad.
        second: Poses, (..., 3).

    Returns:
        Distances, (...) m.
    """
    xp = arrays(first)
    difference = first - second
    turn = 2.0 * GYRATION_SQUARED * (1.0 - xp.cos(difference[..., 2]))
    return xp.sqrt(difference[..., 0] ** 2 + difference[..., 1] ** 2 + turn)


def to_frame(point: Array, pose: Array) -> Array:
    """Return points of the world, (..., 2) m, in the frames of poses, (..., 3)."""
    xp = arrays(point)
    cos, sin = xp.cos(pose[..., 2]), xp.sin(pose[..., 2])
    x, y = point[..., 0] - pose[..., 0], point[..., 1] - pose[..., 1]
    return xp.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)


def _boxes(half_height: float, attributes: str) -> str:
    """Write the bar and the stem."""
    return "".join(
        f'<geom type="box" pos="{(x0 + x1) / 2} {(y0 + y1) / 2} 0" '
        f'size="{(x1 - x0) / 2} {(y1 - y0) / 2} {half_height}" {attributes}/>'
        for x0, y0, x1, y1 in (BAR, STEM)
    )
