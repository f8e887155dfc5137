"""PickPlace: lift a cube over a wall and put it on a mark."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from robopol.envs.arrays import Array, arrays, length
from robopol.envs.cube import EDGE, YAW_RANGE, Cube, cube_mjcf
from robopol.envs.task import Task, Verdict
from robopol.envs.view import View

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
        open and above it (`cube.Cube.released`). There is one way.
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

    def place(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
        """Draw cube and mark on their sides of the wall, and the start within 3 cm (0.2 rad) of its own."""
        x, y = rng.uniform(_LOW, _HIGH)
        self.put("cube", np.array([x, -y, EDGE / 2]), rng.uniform(-YAW_RANGE, YAW_RANGE))
        self.data.mocap_pos[0, :2] = rng.uniform(_LOW, _HIGH)
        return _START + rng.uniform(-1.0, 1.0, 4) * np.array([0.03, 0.03, 0.03, 0.2]), 0.8

    def observe(self, view: View) -> Array:
        """Return the cube's pose and where the mark is."""
        cube = Cube(view, "cube")
        parts = cube.position, cube.yaw[..., None], view.position("goal")[..., :2]
        return arrays(parts[0]).concatenate(parts, axis=-1)

    def begin(self, view: View) -> Array:
        """Remember the lengths of both ways."""
        reach, left = _reach(view), _way_left(view.position("cube"), view.position("goal"))
        return arrays(reach).stack([reach, reach, left, left], axis=-1)

    def judge(self, view: View, memory: Array) -> Verdict:
        """Measure what is left of both ways."""
        xp = arrays(memory)
        least, first_reach, last, first_left = (memory[..., i] for i in range(4))
        cube, mark = Cube(view, "cube"), view.position("goal")
        reach, left = _reach(view), _way_left(cube.position, mark)
        approach = (least - reach).clip(0.0) / first_reach
        transport = (last - left) / first_left
        reward = APPROACH_SHARE * approach + (1 - APPROACH_SHARE) * transport
        near = length((cube.position - mark)[..., :2]) < GOAL_RADIUS
        success = near & cube.lies_at(EDGE / 2) & cube.released()
        return Verdict(reward, success, xp.stack([xp.minimum(least, reach), first_reach, left, first_left], axis=-1))

    @cached_property
    def cube(self) -> Cube:
        """The cube."""
        return Cube(self.view, "cube")

    @property
    def goal(self) -> NDArray[np.float64]:
        """Where the cube's centre belongs, (3,) m."""
        return np.append(self.data.mocap_pos[0, :2], EDGE / 2)


def _reach(view: View) -> Array:
    """Return the distance of the tool from the cube, (...) m."""
    return length(view.tool_pose()[..., :3] - view.position("cube"))


def _way_left(cube: Array, mark: Array) -> Array:
    """Return the length of the shortest way of the cube to the mark over the wall at y = 0, (...) m."""
    xp = arrays(cube)
    goal = _at_height(mark, EDGE / 2)
    y = cube[..., 1:2].clip(max=0.0)  # beyond the wall there is nothing to cross
    crossing = _at_height(cube + (goal - cube) * y / (y - goal[..., 1:2]), CROSSING_HEIGHT)
    over = length(crossing - cube) + length(goal - crossing)
    return xp.where(cube[..., 1] >= 0, length(goal - cube), over)


def _at_height(point: Array, height: float) -> Array:
    """Return points, (..., 3) m, moved up or down to a height."""
    return arrays(point).concatenate((point[..., :2], 0.0 * point[..., 2:] + height), axis=-1)
