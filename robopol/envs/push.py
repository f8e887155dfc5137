"""Push: push a disc to a goal behind a block, past the left or the right side."""

import numpy as np
from numpy.typing import NDArray

from robopol.envs.arrays import Array, arrays, length
from robopol.envs.task import Task, Verdict
from robopol.envs.view import View

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

    def place(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
        """Jitter the disc by up to 1 cm along x, and everything else by up to 5 mm along x and y."""
        disc = self.model.joint("disc").qposadr[0]
        self.data.qpos[disc : disc + 2] = _DISC + rng.uniform(-1.0, 1.0, 2) * [0.01, 0.005]
        self.data.mocap_pos[0, :2] = _BLOCK + rng.uniform(-0.005, 0.005, 2)
        self.data.mocap_pos[1, :2] = _GOAL + rng.uniform(-0.005, 0.005, 2)
        tool = _TOOL.copy()
        tool[:2] += rng.uniform(-0.005, 0.005, 2)
        return tool, FORK_OPENING

    def observe(self, view: View) -> Array:
        """Return the positions of disc, block and goal."""
        places = [view.position(body)[..., :2] for body in ("disc", "block", "goal")]
        return arrays(places[0]).concatenate(places, axis=-1)

    def begin(self, view: View) -> Array:
        """Remember the length of the way."""
        left = _way_left(*_places(view))
        return arrays(left).stack([0.0 * left, left, left], axis=-1)

    def judge(self, view: View, memory: Array) -> Verdict:
        """Measure the way that is left."""
        xp = arrays(memory)
        way, last, first = memory[..., 0], memory[..., 1], memory[..., 2]
        disc, block, goal = _places(view)
        left = _way_left(disc, block, goal)
        passed = (way == 0) & (disc[..., 0] >= block[..., 0])
        way = xp.where(passed, xp.where(disc[..., 1] > block[..., 1], 1.0, 2.0), way)
        near = length(disc - goal) < GOAL_RADIUS
        return Verdict((last - left) / first, near, xp.stack([way, left, first], axis=-1), way - 1)

    @property
    def disc(self) -> NDArray[np.float64]:
        """Centre of the disc, (2,) m."""
        return self.view.position("disc")[:2]

    @property
    def block(self) -> NDArray[np.float64]:
        """Centre of the block, (2,) m."""
        return self.data.mocap_pos[0, :2].copy()

    @property
    def goal(self) -> NDArray[np.float64]:
        """Centre of the goal, (2,) m."""
        return self.data.mocap_pos[1, :2].copy()


def _places(view: View) -> tuple[Array, Array, Array]:
    """Return the centres of disc, block and goal, (..., 2) m each."""
    disc, block, goal = (view.position(body)[..., :2] for body in ("disc", "block", "goal"))
    return disc, block, goal


def _way_left(disc: Array, block: Array, goal: Array) -> Array:
    """Return the length of the shortest way of the disc to the goal around the block, (...) m."""
    xp = arrays(disc)
    x, y = block[..., 0], block[..., 1]
    sides = [xp.stack([x, y + detour], axis=-1) for detour in (DETOUR, -DETOUR)]
    norm = xp.linalg.norm
    ways = [norm(side - disc, axis=-1) + norm(side - goal, axis=-1) for side in sides]
    return xp.where(disc[..., 0] < x, xp.minimum(*ways), length(disc - goal))
