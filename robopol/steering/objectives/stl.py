"""Satisfy a formula of Signal Temporal Logic (pSTL-Diffusion, Meng & Fan 2024; CTG, Zhong et al. 2023)."""

from typing import Literal

from pydantic import Field as Bound
from torch import Tensor

from robopol.errors import ConfigError
from robopol.policies import Policy
from robopol.steering.objectives.formula import Formula
from robopol.steering.objectives.formula_text import read_formula
from robopol.steering.objectives.motion import Track
from robopol.steering.objectives.path_objective import PathObjective, PathObjectiveConfig


class STLConfig(PathObjectiveConfig):
    """The robustness of a formula about the path from now on, m: positive where it is satisfied.

    Attributes:
        formula: See `robopol.steering.objectives.formula_text`. Its signals are x, y and z, the axes of the path, m;
            its times are control steps from now on, where 0 is where the next action leads.
        temperature: 0 is exact, for ranking and for judging. Otherwise minimum and maximum are smooth, which gives
            every step a part of the gradient; it is in m, as the robustness is.
        axes: How many of x, y, z of the arm suite's tool are meant, where nothing is said of the motion.
    """

    kind: Literal["stl"] = "stl"
    formula: str
    temperature: float = Bound(0.0, ge=0, allow_inf_nan=False)
    axes: int = Bound(2, ge=1, le=3)

    def build(self, policy: Policy) -> "STL":
        """See `ObjectiveConfig.build`."""
        track = self.track(policy.spec, self.axes)
        if track.axes > 3:
            raise ConfigError(f"a formula speaks of x, y and z, and the motion has {track.axes} axes")
        formula = read_formula(self.formula, ("x", "y", "z")[: track.axes])
        if formula.length(track.steps) < 1:
            raise ConfigError(
                f"the windows of '{self.formula}' begin {track.steps - formula.length(track.steps)} steps ahead, and "
                f"plans have {track.steps} from now on"
            )
        return STL(self, track, formula)


class STL(PathObjective):
    """See `STLConfig`."""

    config: STLConfig

    def __init__(self, config: STLConfig, track: Track, formula: Formula) -> None:
        """Take over the formula; see `STLConfig.build`."""
        super().__init__(config, track)
        self.formula = formula

    def judge(self, path: Tensor) -> Tensor:
        """See `PathObjective.judge`."""
        return self.formula.robustness(path, self.config.temperature, 1)[..., 0]
