"""Whether what a plan does next can be kept safe (FISOR; Zheng et al. 2024).

As a constraint of `best_of` it leaves the unsafe proposals out, as its objective it takes the safest one, which is
FISOR's own choice.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field as Bound
from torch import Tensor

from robopol.checkpoint import PartOf
from robopol.models.feasibility import FeasibilityModel
from robopol.policies import Policy
from robopol.steering.objectives.model_objective import ModelObjective, fitting
from robopol.steering.objectives.objective import ObjectiveConfig


class FeasibleConfig(ObjectiveConfig):
    """-Q_h of the actions from now on, less a margin: at least 0 where they are feasible.

    Attributes:
        critic: A run, a checkpoint or a folder of a feasibility model (`robopol train algo=fisor`).
        margin: How far below 0 Q_h must be, in the unit of the violations.
    """

    kind: Literal["feasible"] = "feasible"
    critic: Annotated[Any, PartOf("model")]
    margin: float = Bound(0.0, ge=0, allow_inf_nan=False)

    def build(self, policy: Policy) -> "Feasible":
        """See `ObjectiveConfig.build`."""
        critic, described = fitting(self.critic, FeasibilityModel, policy)
        return Feasible(self.model_copy(update={"critic": described}), critic, policy.spec.n_obs_steps)


class Feasible(ModelObjective[FeasibilityModel]):
    """See `FeasibleConfig`."""

    config: FeasibleConfig

    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """See `Objective.score`."""
        return -self.model.q(*self.asked(obs, windows)) - self.config.margin
