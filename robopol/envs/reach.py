"""Reach: bring the tool to a point in space and keep it there."""

import numpy as np
from numpy.typing import NDArray

from robopol.envs.task import Task, Verdict

Array = NDArray[np.float64]

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

    def place(self, rng: np.random.Generator) -> tuple[Array, float]:
        """Draw the target from a box of 34 x 44 x 28 cm and the start within 3 cm (0.2 rad) of its own."""
        self.data.mocap_pos[0] = rng.uniform(_LOW, _HIGH)
        return _START + rng.uniform(-1.0, 1.0, 4) * np.array([0.03, 0.03, 0.03, 0.2]), 0.5

    def observe(self, out: Array) -> None:
        """Write the position of the target."""
        out[:] = self.target

    def judge(self) -> Verdict:
        """Count the steps at the target."""
        distance = float(np.linalg.norm(self.tool_pose()[:3] - self.target))
        if self.memory[2] == 0:  # the reset
            self.memory[1:] = max(distance, TOLERANCE)
            return Verdict(0.0, False, -1)
        self.memory[0] = self.memory[0] + 1 if distance < TOLERANCE else 0
        reward = (self.memory[1] - distance) / self.memory[2]
        self.memory[1] = distance
        return Verdict(float(reward), bool(self.memory[0] >= HOLD_STEPS), -1)

    @property
    def target(self) -> Array:
        """The point to reach, (3,) m."""
        return self.data.mocap_pos[0].copy()
