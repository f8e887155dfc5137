"""PickPlace: lift a cube over a wall and put it on a mark."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from robopol.envs.cube import EDGE, YAW_RANGE, Cube, cube_mjcf
from robopol.envs.task import Task, Verdict

Array = NDArray[np.float64]

GOAL_RADIUS = 0.025
"""Success: the cube's centre is this close to the mark's, m."""
WALL_HEIGHT = 0.05
"""m."""
CROSSING_HEIGHT = WALL_HEIGHT + EDGE
"""Height of the cube's centre on the shortest way over the wall, with half an edge of air below it, m."""
APPROACH_SHARE = 0.25
"""Part of the reward for bringing the tool to the cube; the rest is for the cube's way."""

_LOW = np.array([0.38, 0.10])  # of |x|, |y| of the cube and the mark, on their sides of the wall
_HIGH = np.array([0.58, 0.20])
_START = np.array([0.42, 0.0, 0.18, 0.0])
_WALL = (0.48, 0.32, 0.01)  # middle along x, half length along x, half thickness, m


class PickPlace(Task):
    """Grasp a cube to the right of a wall, lift it over and put it on a mark to the left.

    The wall is longer than the workspace, so the cube cannot be pushed around it. The cube has a random yaw
    (up to `YAW_RANGE`), and it and the mark lie anywhere in fields of 20 x 10 cm, at least 20 cm apart.

    Reward of a step: `APPROACH_SHARE` of the decrease of the least distance so far between tool and cube, plus
    the rest of the progress of the cube along the shortest way over the wall, both in parts of their lengths at
    the reset, so that the rewards of an episode without its success sum to at most 1; success adds 1.
    Success: the cube lies still on the table, its centre within `GOAL_RADIUS` of the mark's, and the gripper is
        open and above it (`cube.Cube.released_by`). There is one way.
    """

    id = "robopol/PickPlace-v0"
    default_max_episode_steps = 100
    object_state_names = (
        "cube x [m]",
        "cube y [m]",
        "cube z [m]",
        "cube yaw [rad]",
        "goal x [m]",
        "goal y [m]",
    )
    memory_size = 4  # least distance to the cube so far, that at the reset, length of the way left, that at the reset

    def objects(self) -> str:
        """Write the cube, the wall and the mark."""
        middle, length, thickness = _WALL
        return (
            f"{cube_mjcf('cube', 'red')}"
            f'<geom name="wall" class="object" type="box" pos="{middle} 0 {WALL_HEIGHT / 2}" '
            f'size="{length} {thickness} {WALL_HEIGHT / 2}" material="slate"/>'
            '<body name="goal" mocap="true" pos="0.5 0.15 0.0005">'
            '<geom class="mark" type="cylinder" size="0.05 0.0004" material="goal"/>'
            f'<geom class="mark" type="cylinder" pos="0 0 0.0002" size="{GOAL_RADIUS} 0.0004" '
            'rgba="0.93 0.98 0.93 1"/></body>'
        )

    def place(self, rng: np.random.Generator) -> tuple[Array, float]:
        """Draw cube and mark on their sides of the wall, and the start within 3 cm (0.2 rad) of its own."""
        x, y = rng.uniform(_LOW, _HIGH)
        self.cube.put(np.array([x, -y, EDGE / 2]), rng.uniform(-YAW_RANGE, YAW_RANGE))
        self.data.mocap_pos[0, :2] = rng.uniform(_LOW, _HIGH)
        return _START + rng.uniform(-1.0, 1.0, 4) * np.array([0.03, 0.03, 0.03, 0.2]), 0.8

    def observe(self, out: Array) -> None:
        """Write the cube's pose and where the mark is."""
        out[:3] = self.cube.position
        out[3] = self.cube.yaw
        out[4:] = self.goal[:2]

    def judge(self) -> Verdict:
        """Measure what is left of both ways."""
        cube, goal = self.cube.position, self.goal
        reach, left = float(np.linalg.norm(self.tool_pose()[:3] - cube)), _way_left(cube, goal)
        if self.memory[3] == 0:  # the reset
            self.memory[:] = reach, reach, left, left
        approach = max(0.0, self.memory[0] - reach) / self.memory[1]
        transport = (self.memory[2] - left) / self.memory[3]
        self.memory[0], self.memory[2] = min(self.memory[0], reach), left
        reward = APPROACH_SHARE * approach + (1 - APPROACH_SHARE) * transport
        near = bool(np.linalg.norm((cube - goal)[:2]) < GOAL_RADIUS)
        success = near and self.cube.lies_at(goal[2]) and self.cube.released_by(self)
        return Verdict(float(reward), success, -1)

    @cached_property
    def cube(self) -> Cube:
        """The cube."""
        return Cube(self, "cube")

    @property
    def goal(self) -> Array:
        """Where the cube's centre belongs, (3,) m."""
        return np.append(self.data.mocap_pos[0, :2], EDGE / 2)


def _way_left(cube: Array, goal: Array) -> float:
    """Return the length of the shortest way of the cube to the goal over the wall at y = 0, m."""
    if cube[1] >= 0:
        return float(np.linalg.norm(goal - cube))
    crossing = cube + (goal - cube) * cube[1] / (cube[1] - goal[1])
    crossing[2] = CROSSING_HEIGHT
    return float(np.linalg.norm(crossing - cube) + np.linalg.norm(goal - crossing))
