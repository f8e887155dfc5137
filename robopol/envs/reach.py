"""Reach: bring the tool to a point in space and keep it there."""

import numpy as np
from numpy.typing import NDArray

from robopol.envs.arrays import Array, arrays, length
from robopol.envs.task import Task, Verdict
from robopol.envs.view import View

TOLERANCE = 0.02
"""The tool is at the target within this distance, m."""
HOLD_STEPS = 5
"""Control steps in a row that the tool must be at the target."""

_LOW = np.array([0.32, -0.22, 0.06])
_HIGH = np.array([0.66, 0.22, 0.34])
_START = np.array([0.45, 0.0, 0.20, 0.0])


class Reach(Task):
    """Bring the tool to a random point and hold it there.

    Reward of a step: the decrease of the distance to the target in parts of the distance at the reset, so
    that the rewards of an episode without its success sum to at most 1; success adds 1.
    Success: within `TOLERANCE` of the target at the end of `HOLD_STEPS` control steps in a row. There is one
        way.
    """

    id = "robopol/Reach-v0"
    default_max_episode_steps = 60
    object_state_names = ("target x [m]", "target y [m]", "target z [m]")
    memory_size = 3  # steps in a row at the target, distance, distance at the reset

    def objects(self) -> str:
        """Write the target, a ball that nothing touches."""
        return (
            f'<body name="target" mocap="true"><geom class="mark" type="sphere" size="{TOLERANCE}" '
            'rgba="0.2 0.7 0.35 0.7"/></body>'
        )

    def place(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
        """Draw the target from a box of 34 x 44 x 28 cm and the start within 3 cm (0.2 rad) of its own."""
        self.data.mocap_pos[0] = rng.uniform(_LOW, _HIGH)
        return _START + rng.uniform(-1.0, 1.0, 4) * np.array([0.03, 0.03, 0.03, 0.2]), 0.5

    def observe(self, view: View) -> Array:
        """Return the position of the target."""
        return view.position("target")

    def begin(self, view: View) -> Array:
        """Remember how far the target is."""
        distance = _distance(view).clip(TOLERANCE)
        return arrays(distance).stack([0.0 * distance, distance, distance], axis=-1)

    def judge(self, view: View, memory: Array) -> Verdict:
        """Count the steps at the target."""
        xp = arrays(memory)
        held, last, first = memory[..., 0], memory[..., 1], memory[..., 2]
        distance = _distance(view)
        held = xp.where(distance < TOLERANCE, held + 1.0, 0.0)
        return Verdict((last - distance) / first, held >= HOLD_STEPS, xp.stack([held, distance, first], axis=-1))

    @property
    def target(self) -> NDArray[np.float64]:
        """The point to reach, (3,) m."""
        return self.data.mocap_pos[0].copy()


def _distance(view: View) -> Array:
    """Return the distance of the tool from the target, (...) m."""
    return length(view.tool_pose()[..., :3] - view.position("target"))
