"""Stack: put one of two cubes on the other."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from robopol.envs.arrays import Array, arrays, length
from robopol.envs.cube import EDGE, YAW_RANGE, Cube, cube_mjcf
from robopol.envs.task import Task, Verdict
from robopol.envs.view import View

OFFSET_TOLERANCE = 0.015
"""Success: the centres are this close to each other seen from above, m."""
LIFTED_HEIGHT = 1.25 * EDGE
"""A cube whose centre is higher is lifted, m."""
LEAST_DISTANCE = 0.13
"""Least distance between the cubes at the start, m; open fingers fit between them."""
APPROACH_SHARE = 0.25
"""Part of the reward for bringing the tool to a cube; the rest is for bringing the cubes together."""

_LOW = np.array([0.38, -0.18])
_HIGH = np.array([0.58, 0.18])
_START = np.array([0.42, 0.0, 0.18, 0.0])


class Stack(Task):
    """Put the red cube on the green one, or the green one on the red one.

    Both cubes are drawn alike, so both ways are equally good from the same state. Each has a random yaw (up to
    `YAW_RANGE`) and lies anywhere in a field of 20 x 36 cm, at least `LEAST_DISTANCE` from the other.

    Reward of a step: `APPROACH_SHARE` of the decrease of the least distance so far between the tool and a cube,
    plus the rest of the decrease of the distance between a cube and its place on the other one, whichever is
    nearer, both in parts of their values at the reset, so that the rewards of an episode without its success sum
    to at most 1; success adds 1.
    Success: a cube lies still on the other one, which lies still on the table, the centres within
        `OFFSET_TOLERANCE` seen from above, and the gripper is open and above (`cube.Cube.released`). Way: the
        cube that was lifted last (its centre above `LIFTED_HEIGHT`), which on success is the upper one.
    """

    id = "robopol/Stack-v0"
    default_max_episode_steps = 100
    way_names = ("red_on_green", "green_on_red")
    object_state_names = tuple(
        f"{cube} {entry}" for cube in ("red", "green") for entry in ("x [m]", "y [m]", "z [m]", "yaw [rad]")
    )
    memory_size = 5  # way + 1, least distance to a cube so far, that at the reset, distance left, that at the reset

    def objects(self) -> str:
        """Write the cubes."""
        return cube_mjcf("red", "red") + cube_mjcf("green", "green")

    def place(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
        """Draw the cubes until they are far enough apart, and the start within 3 cm (0.2 rad) of its own."""
        places = rng.uniform(_LOW, _HIGH, (2, 2))
        while np.linalg.norm(places[0] - places[1]) < LEAST_DISTANCE:
            places = rng.uniform(_LOW, _HIGH, (2, 2))
        for cube, place in zip(("red", "green"), places, strict=True):
            self.put(cube, np.append(place, EDGE / 2), rng.uniform(-YAW_RANGE, YAW_RANGE))
        return _START + rng.uniform(-1.0, 1.0, 4) * np.array([0.03, 0.03, 0.03, 0.2]), 0.8

    def observe(self, view: View) -> Array:
        """Return the poses of the cubes."""
        parts = [part for cube in _cubes(view) for part in (cube.position, cube.yaw[..., None])]
        return arrays(parts[0]).concatenate(parts, axis=-1)

    def begin(self, view: View) -> Array:
        """Remember the distances."""
        reach, (left, _) = _reach(view), _ways_left(view)
        return arrays(reach).stack([0.0 * reach, reach, reach, left, left], axis=-1)

    def judge(self, view: View, memory: Array) -> Verdict:
        """Measure what is left of the nearer way."""
        xp = arrays(memory)
        way, least, first_reach, last, first_left = (memory[..., i] for i in range(5))
        reach, (left, aligned) = _reach(view), _ways_left(view)
        approach = (least - reach).clip(0.0) / first_reach
        transport = (last - left) / first_left
        reward = APPROACH_SHARE * approach + (1 - APPROACH_SHARE) * transport
        red, green = _cubes(view)
        red_z, green_z = red.position[..., 2], green.position[..., 2]
        lifted = xp.maximum(red_z, green_z) > LIFTED_HEIGHT
        way = xp.where(lifted, xp.where(green_z > red_z, 2.0, 1.0), way)
        stacked = aligned & xp.where(green_z > red_z, _lies_on(green, red), _lies_on(red, green))
        least = xp.minimum(least, reach)
        return Verdict(reward, stacked, xp.stack([way, least, first_reach, left, first_left], axis=-1), way - 1)

    @cached_property
    def cubes(self) -> tuple[Cube, Cube]:
        """The red and the green cube."""
        return _cubes(self.view)


def _cubes(view: View) -> tuple[Cube, Cube]:
    return Cube(view, "red"), Cube(view, "green")


def _reach(view: View) -> Array:
    """Return the distance of the tool from the nearer cube, (...) m."""
    tool = view.tool_pose()[..., :3]
    xp = arrays(tool)
    return xp.minimum(*(xp.linalg.norm(tool - cube.position, axis=-1) for cube in _cubes(view)))


def _ways_left(view: View) -> tuple[Array, Array]:
    """Return how far a cube is from its place on the other one, (...) m, and whether they are one above the other."""
    red, green = (cube.position for cube in _cubes(view))
    xp = arrays(red)
    beside = (red - green)[..., :2]
    red_up, green_up = red[..., 2:] - (green[..., 2:] + EDGE), green[..., 2:] - (red[..., 2:] + EDGE)
    ways = [xp.linalg.norm(xp.concatenate((beside, up), axis=-1), axis=-1) for up in (red_up, green_up)]
    return xp.minimum(*ways), length(beside) < OFFSET_TOLERANCE


def _lies_on(top: Cube, bottom: Cube) -> Array:
    """Return whether a cube lies at the height of one on the other, let go."""
    return bottom.lies_at(EDGE / 2) & top.lies_at(1.5 * EDGE) & top.released()
