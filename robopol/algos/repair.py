"""Learn to repair plans: the RefineNet of pSTL-Diffusion (Meng & Fan, RA-L 2024), for any policy and any objective."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Remembers
from robopol.algos.editors import editing
from robopol.algos.regression import Regression, RegressionConfig
from robopol.config import OneOf
from robopol.data.windows import narrowed
from robopol.errors import ConfigError
from robopol.networks.precision import Runtime
from robopol.policies import Needs, Part, Policy
from robopol.policies.deterministic import DeterministicConfig, DeterministicPolicy
from robopol.steering.learned_repair import LearnedRepair
from robopol.steering.objectives import Objective
from robopol.steering.steered import SteeredPolicy


class RepairConfig(RegressionConfig):
    """A frozen policy proposes K plans in recorded states; an editor learns to change those that violate an objective.

    With r_i the scores after the repair and r'_i the same, or what the smooth objective says:

        L = satisfaction mean_i relu(margin - r'_i) - diversity tr(I - (Q D Q + I)^-1) / K + near mean_i |u_i - b_i|^2
        D_ij = exp(-|u_i - u_j|),  Q = diag(exp(r'_i) where r_i > 0, else 0)

    with u_i the actions after the repair, b_i before, both normalised.

    The trace is the expected number of plans that a determinantal point process would draw: only plans that satisfy
    the objective and differ from each other count. Proposals that satisfy it already are part of the set, and are not
    changed. The authors' command has satisfaction 0, so that only what the diversity is worth draws plans across. Where
    the objective does not say all that a plan is for, only what is near to what was proposed still does the task.

    Attributes:
        objective: What is to be at least 0; exact, since its sign says what is repaired.
        smooth: What is climbed instead, e.g. the same formula with a temperature; the objective if left out. Choose a
            margin that is larger than what they differ by.
        margin: How far above 0 plans are to get, in the objective's unit.
        satisfaction: Weight of satisfying.
        diversity: Weight of differing.
        near: Weight of staying near to what was proposed; 0 as published.
        proposals: K.
        reach: Greatest change of an action entry, in units of half the width of its bounds.
        editor: Who edits.
    """

    kind: Literal["repair"] = "repair"
    lr: float = Field(3e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    ema_max: float = Field(0.999, ge=0, lt=1)
    objective: Annotated[Any, OneOf("objective")] | None = None
    smooth: Annotated[Any, OneOf("objective")] | None = None
    margin: float = Field(0.02, ge=0, allow_inf_nan=False)
    satisfaction: float = Field(1.0, ge=0, allow_inf_nan=False)
    diversity: float = Field(1.0, ge=0, allow_inf_nan=False)
    near: float = Field(0.0, ge=0, allow_inf_nan=False)
    proposals: int = Field(16, ge=1)
    reach: float = Field(1.0, gt=0, allow_inf_nan=False)
    editor: DeterministicConfig = DeterministicConfig(hidden=(256, 256))

    def build(self, policy: Policy, total_updates: int, runtime: Runtime) -> "Repair":
        """Return the algorithm.

        Args:
            policy: The base policy, on its device; it stays as it is.
            total_updates: Length of the learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If there is no objective, its plans cannot be scored so, its actions have no bounds, it is
                steered, or it looks at pictures.
        """
        if self.objective is None:
            raise ConfigError(
                "nothing says what is to be repaired: set algo.objective, e.g. to {kind: stl, formula: 'always ...'}"
            )
        return Repair(self, policy, total_updates, runtime)


class Repair(Regression):
    """See `RepairConfig`.

    Attributes:
        base: The policy that proposes.
        editor: The editor, as it stands.
        repair: What it does.
    """

    config: RepairConfig

    def __init__(self, config: RepairConfig, base: Policy, total_updates: int, runtime: Runtime) -> None:
        """Make the editor; see `RepairConfig.build`."""
        assert config.objective is not None
        self.base = base.eval().requires_grad_(False)
        self.editor: DeterministicPolicy = editing(config.editor, base, base.spec.chunk, config.reach)
        super().__init__(config, self.editor, "editor", total_updates, runtime)
        objective = config.objective.build(base).to(base.device)
        self.repair = LearnedRepair(self.editor, objective, base).to(base.device)
        self.smooth: Objective = objective if config.smooth is None else config.smooth.build(base).to(base.device)
        averaged = LearnedRepair(cast(DeterministicPolicy, self.ema.module), objective, base).to(base.device)
        self._steered = SteeredPolicy(base, [averaged]).eval()
        if unknown := self.smooth.obs_shapes.keys() - self._steered.spec.obs_shapes.keys():
            raise ConfigError(
                f"algo.smooth looks at {', '.join(sorted(unknown))}, and neither the policy nor algo.objective does: "
                "let both objectives look at the same"
            )

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        judges = {"objective": self.repair.objective, "smooth": self.smooth}
        if self.smooth is self.repair.objective:
            del judges["smooth"]
        return super().beside | {"base": self.base} | judges

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`."""
        return self.base.needs

    def losses(self, batch: Mapping[str, Any], step: int, generator: Generator) -> Tensor:
        """See `Regression.losses`."""
        config, spec = self.config, self.base.spec
        obs = narrowed(batch, spec.n_obs_steps, spec.horizon)["obs"]
        with torch.no_grad():
            proposed = self.base.plan(obs, config.proposals, generator)
            violated = self.repair.objective.score(obs, proposed) < 0
        plans = torch.where(violated[..., None, None], self.repair.changed(obs, proposed), proposed)
        smooth = self.smooth.score(obs, plans)
        loss = config.satisfaction * (config.margin - smooth).relu().mean(-1)
        actions, before = (
            self.base.action_normalizer.normalize(chunks[:, :, spec.n_obs_steps - 1 :]) for chunks in (plans, proposed)
        )
        if config.near > 0:
            loss = loss + config.near * (actions - before).square().sum((-1, -2)).mean(-1)
        if config.diversity > 0:
            with torch.no_grad():
                good = self.repair.objective.score(obs, plans) > 0
            drawn = expected_number(actions.flatten(2), torch.where(good, smooth.exp(), 0.0))
            loss = loss - config.diversity * drawn / config.proposals
        return loss

    def deployed(self) -> Policy:
        """See `Algorithm.deployed`; the base policy, repaired by the averaged editor."""
        return self._steered

    def parts(self) -> dict[str, Part]:
        """See `Algorithm.parts`; the repaired policy."""
        return {"policy": self._steered}


def expected_number(actions: Tensor, quality: Tensor) -> Tensor:
    """Return the expected number of plans that a determinantal point process draws, tr(I - (L + I)^-1).

    L is the similarity exp(-distance) of two plans, times the quality of both (Kulesza & Taskar 2012, eq. 34).

    Args:
        actions: (B, K, D).
        quality: At least 0, (B, K); plans of quality 0 are never drawn.

    Returns:
        In [0, K], (B,).
    """
    similarity = torch.exp(-_distances(actions))
    kernel = quality[:, :, None] * similarity * quality[:, None]
    eye = torch.eye(actions.shape[1], dtype=kernel.dtype, device=kernel.device)
    inverse = torch.linalg.inv(kernel + eye)
    return (eye - inverse).diagonal(dim1=-2, dim2=-1).sum(-1)


def _distances(points: Tensor) -> Tensor:
    """Return the distances (B, K, K) of points (B, K, D), with a gradient of 0 where they are none."""
    squares = (points[:, :, None] - points[:, None]).square().sum(-1)
    apart = squares > 0
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
