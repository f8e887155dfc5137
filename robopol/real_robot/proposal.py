"""What a policy proposes, looked at in its own space: whatever it is, it would become joint positions within limits."""

import numpy as np
from numpy.typing import NDArray

from robopol.evaluation.fitness import widened
from robopol.policies import PolicySpec
from robopol.real_robot.chunk import GateConfig, Rejection
from robopol.real_robot.events import Code


class ProposalGate:
    """Refuses actions that are no numbers, or far outside the box that the policy was trained in.

    On the way to joint positions (`robopol.real_robot.waypoints`) actions are clipped to that box, as its world clipped
    them. Degrees in place of radians, 1e6 and infinity would become full speed within all limits there, and nobody
    after that could tell. So they are looked at before: a little beyond the box is in order, within the same margin as
    that of `robopol.real_robot.chunk.GateConfig`.
    """

    def __init__(self, spec: PolicySpec, config: GateConfig) -> None:
        """Make a gate.

        Args:
            spec: The box of actions, in the policy's space.
            config: Margin, and whether what lies outside is refused or clipped.
        """
        self._low, self._high = widened(spec, config.margin)
        self._strict = config.strict

    def judge(self, actions: NDArray[np.float32]) -> Rejection | int:
        """Take actions or refuse them.

        Args:
            actions: (H, A) in the policy's space.

        Returns:
            How many of the numbers will be clipped although they are beyond the margin, which is 0 where that is not
            allowed; or why the actions are refused.
        """
        finite = np.isfinite(actions)
        if not finite.all():
            return Rejection(Code.CHUNK_NOT_FINITE, (float(np.sum(~finite)),))
        excess = np.maximum(self._low - actions, actions - self._high)
        clipped = int(np.count_nonzero(excess > 0))
        if clipped and self._strict:
            row, column = np.unravel_index(int(np.argmax(excess)), excess.shape)
            value = float(actions[row, column])
            bound = self._low[column] if value < self._low[column] else self._high[column]
            return Rejection(Code.CHUNK_RANGE, (float(column), value, float(bound)))
        return clipped
