"""The expert of Reach: straight to the target."""

import numpy as np
from numpy.typing import NDArray

from robopol.envs.experts.expert import Expert, advance
from robopol.envs.reach import Reach

_STEP = 0.02  # m a control step


class ReachExpert(Expert):
    """Moves the tool along the straight line to the target and turns it to yaw 0."""

    def plan(self, env: Reach) -> tuple[NDArray[np.float64], float]:
        """Take one step along the line."""
        tool = env.tool_pose()
        reference = env.commanded_pose()
        point = advance(reference[:3], env.target - tool[:3], _STEP)
        return np.append(point, 0.8 * reference[3]), 0.5
