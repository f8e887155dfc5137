"""Push: push a disc to a goal behind a block, past the left or the right side."""

import numpy as np
from numpy.typing import NDArray

from robopol.envs.task import Task, Verdict

Array = NDArray[np.float64]

DISC_RADIUS = 0.045
"""m; wider than the open gripper, so the disc rests against both fingertips and cannot slip between them."""
DISC_HEIGHT = 0.04
"""m."""
BLOCK_HALF_SIZE = (0.02, 0.04, 0.035)
"""Half sizes of the block along x (towards the goal), y and z, m."""
DETOUR = 0.115
"""Distance beside the block's centre at which the disc and the fingers pass it, m."""
FORK_OPENING = 0.9
"""Opening of the gripper at which the fingertips hold the disc in a cone of plus or minus 58 degrees."""
GOAL_RADIUS = 0.03
"""Success: the disc's centre is this close to the goal, m."""

_DISC = np.array([0.335, 0.0])
_BLOCK = np.array([0.53, 0.0])
_GOAL = np.array([0.69, 0.0])
_TOOL = np.array([0.262, 0.0, 0.015, 0.0])


class Push(Task):
    """Push a disc around a fixed block to a goal zone behind it.

    The start is nearly symmetric, so both ways are equally good from the same state, and the mean of the two
    drives the disc into the block. The open fingers form a fork that holds the disc from behind.

    Reward of a step: the progress of the disc along the shortest way around the block, in parts of that way's
    length at the reset, so that the rewards of an episode without its success sum to at most 1; success adds
    1.
    Success: the disc's centre within `GOAL_RADIUS` of the goal. Way: the side on which the disc's centre
        passed the
    block's ("left" is +y, as the arm sees it).
    """

    id = "robopol/Push-v0"
    default_max_episode_steps = 80
    way_names = ("left", "right")
    object_state_names = (
        "disc x [m]",
        "disc y [m]",
        "block x [m]",
        "block y [m]",
        "goal x [m]",
        "goal y [m]",
    )
    memory_size = 3  # way + 1, length of the way left, length of the way at the reset

    def objects(self) -> str:
        """Write the disc, the block and the goal."""
        bx, by, bz = BLOCK_HALF_SIZE
        return (
            f'<body name="disc" pos="{_DISC[0]} {_DISC[1]} {DISC_HEIGHT / 2}"><freejoint name="disc"/>'
            f'<geom name="disc" class="object" type="cylinder" size="{DISC_RADIUS} {DISC_HEIGHT / 2}" '
            'mass="0.2" material="red" contype="4" conaffinity="0"/>'
            # what fingers and block touch at half height: a box against a sphere is exact in every MuJoCo, against a
            # cylinder it is not
            f'<geom name="rim" class="object" type="sphere" size="{DISC_RADIUS}" mass="0" contype="0" group="3"/>'
            f'<geom class="mark" type="cylinder" pos="0 0 {DISC_HEIGHT / 2}" size="0.012 0.0003" '
            'rgba="1 1 1 1"/>'
            "</body>"
            f'<body name="block" mocap="true" pos="{_BLOCK[0]} {_BLOCK[1]} {bz}">'
            f'<geom name="block" class="object" type="box" size="{bx} {by} {bz}" material="slate"/></body>'
            f'<body name="goal" mocap="true" pos="{_GOAL[0]} {_GOAL[1]} 0.0005">'
            '<geom class="mark" type="cylinder" size="0.055 0.0004" material="goal"/>'
            f'<geom class="mark" type="cylinder" pos="0 0 0.0002" size="{GOAL_RADIUS} 0.0004" '
            'rgba="0.93 0.98 0.93 1"/></body>'
        )

    def place(self, rng: np.random.Generator) -> tuple[Array, float]:
        """Jitter the disc by up to 1 cm along x, and everything else by up to 5 mm along x and y."""
        self._disc = self.model.body("disc").id
        disc = self.model.joint("disc").qposadr[0]
        self.data.qpos[disc : disc + 2] = _DISC + rng.uniform(-1.0, 1.0, 2) * [0.01, 0.005]
        self.data.mocap_pos[0, :2] = _BLOCK + rng.uniform(-0.005, 0.005, 2)
        self.data.mocap_pos[1, :2] = _GOAL + rng.uniform(-0.005, 0.005, 2)
        tool = _TOOL.copy()
        tool[:2] += rng.uniform(-0.005, 0.005, 2)
        return tool, FORK_OPENING

    def observe(self, out: Array) -> None:
        """Write the positions of disc, block and goal."""
        out[:2] = self.disc
        out[2:4] = self.block
        out[4:] = self.goal

    def judge(self) -> Verdict:
        """Measure the way that is left."""
        disc, block, goal = self.disc, self.block, self.goal
        left = float(np.linalg.norm(disc - goal))
        near = left < GOAL_RADIUS
        if disc[0] < block[0]:
            sides = block + np.array([[0.0, DETOUR], [0.0, -DETOUR]])
            left = float((np.linalg.norm(sides - disc, axis=1) + np.linalg.norm(sides - goal, axis=1)).min())
        elif self.memory[0] == 0:
            self.memory[0] = 1 if disc[1] > block[1] else 2
        if self.memory[2] == 0:
            self.memory[1:] = left
        reward = (self.memory[1] - left) / self.memory[2]
        self.memory[1] = left
        return Verdict(float(reward), near, int(self.memory[0]) - 1)

    @property
    def disc(self) -> Array:
        """Centre of the disc, (2,) m."""
        return self.data.xpos[self._disc, :2].copy()

    @property
    def block(self) -> Array:
        """Centre of the block, (2,) m."""
        return self.data.mocap_pos[0, :2].copy()

    @property
    def goal(self) -> Array:
        """Centre of the goal, (2,) m."""
        return self.data.mocap_pos[1, :2].copy()
