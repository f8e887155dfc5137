"""The expert of Push: keep the fork behind the disc and lead the disc around the block."""

import numpy as np
from numpy.typing import NDArray

from robopol.envs.experts.expert import Expert, advance
from robopol.envs.gripper import FINGER_HALF_SIZE, STROKE
from robopol.envs.push import DETOUR, DISC_RADIUS, FORK_OPENING, Push

_STEP = 0.015  # m a control step
_AHEAD = 0.03  # m by which the aim leads the disc
_GAP = 0.006  # m between the fork and the disc below which it pushes
_OFF_CENTRE = 0.025  # m by which the disc is beside the fork's middle when the push pauses
_HEIGHT = 0.015  # m of the fingertips above the table
# Distance of the tool behind the centre of a disc that rests against the inner edges of both fingertips, m.
_BEHIND = float(np.sqrt(DISC_RADIUS**2 - (FORK_OPENING * STROKE / 2) ** 2)) + FINGER_HALF_SIZE[0]


class PushExpert(Expert):
    """Pushes the disc past the block's side of its way, then to the goal.

    While the disc is in the fork, the tool heads for the point behind the disc moved a little towards the
    next waypoint; this centres the fork and pushes at once. A disc that left the fork is approached anew from
    behind.
    """

    def plan(self, env: Push) -> tuple[NDArray[np.float64], float]:
        """Take one step behind the disc."""
        tool, disc = env.tool_pose(), env.disc
        offset = disc - tool[:2] - np.array([_BEHIND, 0.0])
        if offset[0] < -0.02 or abs(offset[1]) > 0.03:
            # Back off first, then across: going across at once would knock the disc away.
            aim = np.array([min(tool[0], disc[0] - 0.08), tool[1]])
            if tool[0] < disc[0] - 0.07:
                aim = np.array([disc[0] - 0.08, disc[1]])
        else:
            aim = disc - np.array([_BEHIND, 0.0]) + self._lead(env, disc, offset)
        reference = env.commanded_pose()
        point = advance(reference[:2], aim - tool[:2], _STEP)
        return np.array([*point, _HEIGHT, 0.8 * reference[3]]), FORK_OPENING

    def _lead(self, env: Push, disc: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by how much the aim leads the disc."""
        if offset[0] > _GAP:  # close up straight: a fork that meets the disc off centre loses it
            return np.array([_GAP, 0.0])
        towards = self._waypoint(env, disc) - disc
        # A fork that is off centre centres before it pushes on, else the disc slips past a fingertip.
        ahead = _AHEAD * max(0.0, 1.0 - abs(offset[1]) / _OFF_CENTRE)
        return towards * (ahead / max(float(np.linalg.norm(towards)), _AHEAD))

    def _waypoint(self, env: Push, disc: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the next point on the disc's way: beside the block, along it, then the goal."""
        side = 1.0 if self.way == 0 else -1.0
        before, after = env.block + np.array([[-0.06, side * DETOUR], [0.045, side * DETOUR]])
        if disc[0] < before[0] - 0.01:
            return before
        return after + np.array([_AHEAD, 0.0]) if disc[0] < after[0] else env.goal
