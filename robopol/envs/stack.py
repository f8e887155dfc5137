"""Stack: put one of two cubes on the other."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from robopol.envs.cube import EDGE, YAW_RANGE, Cube, cube_mjcf
from robopol.envs.task import Task, Verdict

Array = NDArray[np.float64]

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
        `OFFSET_TOLERANCE` seen from above, and the gripper is open and above (`cube.Cube.released_by`). Way: the
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

    def place(self, rng: np.random.Generator) -> tuple[Array, float]:
        """Draw the cubes until they are far enough apart, and the start within 3 cm (0.2 rad) of its own."""
        places = rng.uniform(_LOW, _HIGH, (2, 2))
        while np.linalg.norm(places[0] - places[1]) < LEAST_DISTANCE:
            places = rng.uniform(_LOW, _HIGH, (2, 2))
        for cube, place in zip(self.cubes, places, strict=True):
            cube.put(np.append(place, EDGE / 2), rng.uniform(-YAW_RANGE, YAW_RANGE))
        return _START + rng.uniform(-1.0, 1.0, 4) * np.array([0.03, 0.03, 0.03, 0.2]), 0.8

    def observe(self, out: Array) -> None:
        """Write the poses of the cubes."""
        for cube, part in zip(self.cubes, (out[:4], out[4:]), strict=True):
            part[:3] = cube.position
            part[3] = cube.yaw

    def judge(self) -> Verdict:
        """Measure what is left of the nearer way."""
        tool, places = self.tool_pose()[:3], np.stack([cube.position for cube in self.cubes])
        offsets = places - (places[::-1] + np.array([0.0, 0.0, EDGE]))  # from each cube's place on the other
        reach = float(np.linalg.norm(tool - places, axis=1).min())
        left = float(np.linalg.norm(offsets, axis=1).min())
        if self.memory[4] == 0:  # the reset
            self.memory[1:] = reach, reach, left, left
        approach = max(0.0, self.memory[1] - reach) / self.memory[2]
        transport = (self.memory[3] - left) / self.memory[4]
        self.memory[1], self.memory[3] = min(self.memory[1], reach), left
        reward = APPROACH_SHARE * approach + (1 - APPROACH_SHARE) * transport
        upper = int(np.argmax(places[:, 2]))
        if places[upper, 2] > LIFTED_HEIGHT:
            self.memory[0] = upper + 1
        return Verdict(float(reward), self._stacked(upper, offsets[upper]), int(self.memory[0]) - 1)

    def _stacked(self, upper: int, offset: Array) -> bool:
        """Return whether a cube lies on the other one, let go."""
        top, bottom = self.cubes[upper], self.cubes[1 - upper]
        aligned = bool(np.linalg.norm(offset[:2]) < OFFSET_TOLERANCE)
        return aligned and bottom.lies_at(EDGE / 2) and top.lies_at(1.5 * EDGE) and top.released_by(self)

    @cached_property
    def cubes(self) -> tuple[Cube, Cube]:
        """The red and the green cube."""
        return Cube(self, "red"), Cube(self, "green")
