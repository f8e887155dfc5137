"""Move smoothly (behaviour composition of PoCo; Wang et al. 2024)."""

from typing import Literal

from pydantic import Field as Bound
from torch import Tensor

from robopol.errors import ConfigError
from robopol.policies import Policy
from robopol.steering.objectives.path_objective import PathObjective, PathObjectiveConfig


class SmoothnessConfig(PathObjectiveConfig):
    """Minus the sum of the squared second differences of the path, m^2: PoCo's cost ||p_(k+1) - 2 p_k + p_(k-1)||^2.

    Attributes:
        axes: How many of x, y, z of the arm suite's tool are meant, where nothing is said of the motion.
    """

    kind: Literal["smoothness"] = "smoothness"
    axes: int = Bound(3, ge=1, le=3)

    def build(self, policy: Policy) -> "Smoothness":
        """See `ObjectiveConfig.build`."""
        track = self.track(policy.spec, self.axes)
        if track.steps < 3:
            raise ConfigError(f"how smooth a path is shows from 3 steps on, and plans have {track.steps} from now on")
        return Smoothness(self, track)


class Smoothness(PathObjective):
    """See `SmoothnessConfig`."""

    config: SmoothnessConfig

    def judge(self, path: Tensor) -> Tensor:
        """See `PathObjective.judge`."""
        return -path.diff(n=2, dim=-2).square().sum((-1, -2))
