"""The base of the experts that carry a cube: grasp, lift, go across, lower, let go."""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.cube import EDGE, Cube, quarter
from robopol.envs.experts.expert import Expert, advance
from robopol.envs.gripper import STROKE
from robopol.envs.task import Task

Array = NDArray[np.float64]

_STEP = 0.03  # m a control step
_GAIN = 0.6  # part of what is left that a step goes; less than all, so a delay does not make it swing
_TURN = 0.12  # rad a control step
_OPEN = 0.8  # opening around a cube, with 14 mm of air on either side
_GRIP = 0.25  # opening asked for when a cube, 0.47 wide, is between the fingers; the servo presses
_DEPTH = 0.008  # m of the fingertips below the cube's centre
_HOVER = 0.08  # m above its aim at which the tool goes across
_NEAR = 0.006  # m beside its aim at which the tool is all the way down
_SLOPE = 4.0  # of the funnel between the two
_PLACED = np.array([0.008, 0.006])  # m from its place at which the cube is let go: across, up
_PRESS = 0.006  # m below its place that the cube is lowered to, so that what is under it ends the motion
_RETREAT = 0.10  # m above the cube where the tool ends


class CarryExpert(Expert):
    """Carries a cube to where it belongs.

    What it does next follows from where things are, so a cube that was lost is grasped anew, and one that was
    put down wrong is picked up again.
    """

    @abstractmethod
    def job(self, env: Any) -> tuple[Cube, Array]:
        """Return the cube to carry, and the pose (x, y, z, yaw) at which it belongs, (4,) m and rad."""

    def plan(self, env: Task) -> tuple[Array, float]:
        """Take one step of the phase that the scene is in."""
        cube, goal = self.job(env)
        tool, opening, centre = env.tool_pose(), env.opening(), cube.position
        left = np.append(goal[:3] - centre, quarter(goal[3] - cube.yaw))
        if np.linalg.norm(left[:2]) < _PLACED[0] and abs(left[2]) < _PLACED[1]:
            return self._let_go(env, centre, opening), _OPEN
        grasp = np.append(centre - [0.0, 0.0, _DEPTH] - tool[:3], quarter(cube.yaw - tool[3]))
        # Fingers that have begun to close go on, even if the noise moved them.
        if np.linalg.norm(grasp[:3]) > (0.006 if opening > 0.7 else 0.025):
            return _fly(env, grasp), _OPEN
        held = opening < EDGE / STROKE + 0.03
        return _fly(env, left - [0.0, 0.0, _PRESS, 0.0]) if held else env.commanded_pose(), _GRIP

    def _let_go(self, env: Task, centre: Array, opening: float) -> Array:
        """Wait until the fingers are open, then rise."""
        pose = env.commanded_pose()
        if opening > 0.9 * _OPEN:
            pose[2] = min(pose[2] + _STEP, centre[2] + _RETREAT)
        return pose


def _fly(env: Task, move: Array) -> Array:
    """Return the next pose on the way that ends after a motion (x, y, z, yaw), coming down as into a funnel."""
    beside = float(np.linalg.norm(move[:2])) + 0.1 * abs(move[3])
    height = np.clip(_SLOPE * (beside - _NEAR), 0.0, _HOVER)
    motion = move[:3] + np.array([0.0, 0.0, height])
    if motion[2] > 0.02:  # too low to go across
        motion[:2] = 0.0
    reference = env.commanded_pose()
    turn = float(np.clip(_GAIN * move[3], -_TURN, _TURN))
    return np.append(advance(reference[:3], _GAIN * motion, _STEP), reference[3] + turn)
