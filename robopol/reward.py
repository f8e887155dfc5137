"""What is learned from instead of the reward of a world: one rule, for records and for the world alike."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from robopol.config import Config


class Reward(Config):
    """A reward of every step, r' = scale r + shift.

    Where steps count on until an episode terminates, a shift says what time costs: -1 makes of success 1 and nothing
    else 0 an end at 0 and -1 a step (AntMaze, and robomimic as DSRL learns it); scale 10 and shift 5 or -5 are
    Cal-QL's for Adroit and AntMaze. What terminated, and what was cut off, stays so.

    Attributes:
        of: What r is: the ``world``'s own reward; or ``success``, 1 in the last step of an episode that succeeded and 0
            in all others, which needs no reward at all.
        scale: Factor.
        shift: What is added in every step.
    """

    of: Literal["world", "success"] = "world"
    scale: float = Field(1.0, allow_inf_nan=False)
    shift: float = Field(0.0, allow_inf_nan=False)

    def of_steps(self, reward: Tensor, won: Tensor) -> Tensor:
        """Return r' of some steps.

        Args:
            reward: (n,), the world's own.
            won: (n,) bool, whether it is the last step of an episode that succeeded.

        Returns:
            (n,) of the same type.
        """
        told = won.to(reward.dtype) if self.of == "success" else reward
        return self.scale * told + self.shift
