"""Where a plan leads, by a learned dynamics model: towards some outcomes, away from others (DynaGuide; Du & Song 2025).

With z the predicted outcome of the next actions, the score is

    log sum_i exp(-|g_i - z| / width) - log sum_j exp(-|b_j - z| / width)

over the outcomes g_i that are wanted and b_j that are not. Lengths are per root of an outcome's size, so that the width
does not depend on it. A dynamics model that was trained on noised actions too is asked about noised plans
(``guide`` with ``at=noisy``), as published; about clean estimates any will do.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field as Bound
from pydantic import model_validator
from torch import Tensor

from robopol.checkpoint import PartOf
from robopol.errors import ConfigError
from robopol.models.dynamics import DynamicsModel
from robopol.policies import Policy
from robopol.steering.objectives.model_objective import ModelObjective, fitting
from robopol.steering.objectives.motion import Entry, numbers
from robopol.steering.objectives.objective import ObjectiveConfig

Point = tuple[Annotated[float, Bound(allow_inf_nan=False)], ...]


class OutcomeConfig(ObjectiveConfig):
    """Reach outcomes, and keep away from others.

    Attributes:
        dynamics: A run, a checkpoint or a folder of a dynamics model (`robopol train algo=dynamics`).
        entries: Which entries of an outcome count, by number or by the name of the state's entry ("disc x"); None is
            all.
        toward: Outcomes that are wanted, the values of those entries in environment units.
        away: Outcomes that are not.
        width: Distance, in normalised units per entry, within which an outcome pulls or pushes more than others.
    """

    kind: Literal["outcome"] = "outcome"
    dynamics: Annotated[Any, PartOf("model")]
    entries: tuple[Entry, ...] | None = Bound(None, min_length=1)
    toward: tuple[Point, ...] = ()
    away: tuple[Point, ...] = ()
    width: float = Bound(0.3, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if not self.toward and not self.away:
            raise ValueError("an outcome needs something to go to or to keep away from: give toward or away")
        if len({len(point) for point in (*self.toward, *self.away)}) > 1:
            raise ValueError("the outcomes in toward and away have different numbers of entries")
        return self

    def build(self, policy: Policy) -> "Outcome":
        """See `ObjectiveConfig.build`."""
        model, described = fitting(self.dynamics, DynamicsModel, policy)
        outcome = model.outcome
        entries = self.entries or tuple(range(outcome.dim))
        named = any(isinstance(entry, str) for entry in entries)
        names: tuple[str, ...] = ()
        if named:
            if outcome.keys != ["state"] or policy.spec.env is None:
                raise ConfigError(
                    "entries are named for outcomes that are the state of a known world: give their numbers"
                )
            with policy.spec.env.checked().make(1) as env:
                names = env.spec.state_names
        chosen = numbers(entries, names, outcome.dim, "the outcomes of the dynamics model")
        point = (*self.toward, *self.away)[0]
        if len(point) != len(chosen):
            raise ConfigError(f"an outcome in toward or away has {len(point)} numbers, and {len(chosen)} entries count")
        config = self.model_copy(update={"dynamics": described, "entries": chosen})
        return Outcome(config, model, policy.spec.n_obs_steps, chosen)


class Outcome(ModelObjective[DynamicsModel]):
    """See `OutcomeConfig`."""

    config: OutcomeConfig

    def __init__(self, config: OutcomeConfig, model: DynamicsModel, n_obs_steps: int, entries: tuple[int, ...]) -> None:
        """Take over the model; see `OutcomeConfig.build`, which numbered the entries that count."""
        super().__init__(config, model, n_obs_steps)
        self.entries = list(entries)

    def score(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """See `Objective.score`."""
        reached = self.model.predict(*self.asked(obs, windows))[..., self.entries]  # (B, K, D)
        score = reached.new_zeros(reached.shape[:2])
        for points, sign in ((self.config.toward, 1.0), (self.config.away, -1.0)):
            if points:
                apart = (self._normalised(points) - reached[:, :, None]) / len(self.entries) ** 0.5
                length = (apart.square().sum(-1) + 1e-12).sqrt()  # differentiable where a plan arrives
                score = score + sign * torch.logsumexp(-length / self.config.width, -1)
        return score

    def _normalised(self, points: tuple[Point, ...]) -> Tensor:
        normalizer = self.model.outcome.normalizer
        given = torch.tensor(points, device=normalizer.offset.device)
        return (given - normalizer.offset[self.entries]) * normalizer.scale[self.entries]
