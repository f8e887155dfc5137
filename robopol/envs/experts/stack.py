"""The expert of Stack: one cube onto the other, side by side."""

import numpy as np
from numpy.typing import NDArray

from robopol.envs.cube import EDGE, Cube
from robopol.envs.experts.carry import CarryExpert
from robopol.envs.stack import Stack


class StackExpert(CarryExpert):
    """Puts the cube of its way on the other one, turned like it."""

    def job(self, env: Stack) -> tuple[Cube, NDArray[np.float64]]:
        """Name the upper cube and its place on the lower one."""
        upper, lower = env.cubes[self.way], env.cubes[1 - self.way]
        return upper, np.append(lower.position + np.array([0.0, 0.0, EDGE]), lower.yaw)
