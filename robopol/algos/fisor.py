"""FISOR (Zheng et al. 2024): which states can be kept safe, learned offline, and a policy that keeps them so."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Remembers
from robopol.algos.critics import Critics, CriticsConfig, expectile_loss, exponential_weights, usable
from robopol.algos.value_critics import advantage_weights
from robopol.algos.violations import CostConfig
from robopol.checkpoint import load_part
from robopol.config import OneOf
from robopol.data.windows import narrowed
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.feasibility import FeasibilityModel
from robopol.models.value import ValueModel
from robopol.networks.precision import Runtime
from robopol.policies import Needs, Policy


class FISORConfig(CriticsConfig):
    """Feasibility by reversed expectiles, and a policy weighted by it; without a policy, only the critic is trained.

    Let h be ``unsafe`` for a chunk that violates something while it is executed, else ``safe``; Gamma its discount, s'
    the state after it (`robopol.data.windows.Batch`), Q'_h = max over heads of the target:

        L_V = |tau - 1(u > 0)| u^2,  u = Q'_h(s, a) - V_h(s)    (towards the least that actions of the data lead to)
        L_Q = mean over heads of (Q_h(s, a) - y)^2,
              y = (1 - Gamma) h + Gamma max(h, V_h(s')), and h where the episode terminates

    and the policy's loss of a sample is weighted by

        min(exp(beta_unsafe (V_h - Q_h)), max_unsafe)   where V_h > 0: out of danger, by the safest actions
        min(exp(beta (Q - V)), max_weight)              where V_h <= 0 and Q_h <= 0: by reward, among safe actions
        0                                               otherwise.

    Q and V are a finished value's (algo=iql), where published they are learned alongside; neither reads the other.
    With a discount the boundary's values are small, and errors of that size move it: hold it against rollouts.

    Attributes:
        violations: What is not to happen; a chunk violates if any of these does.
        safe: h of a chunk without violation. With ``unsafe`` it says how much a violation counts in the mean that an
            expectile is: -1 and 25 as published call a state feasible only where nearly all its actions are.
        unsafe: h of a violation.
        expectile: tau; towards 1, the safest action of the data.
        value: A run, checkpoint or folder of a value that says which actions earn more; None takes all safe actions
            alike.
        beta: Inverse temperature of the advantage, in one over the unit of the return.
        max_weight: Largest weight of a sample from a feasible state.
        beta_unsafe: Inverse temperature of the danger, in one over the unit of h.
        max_unsafe: Largest weight of a sample from an infeasible state.
    """

    kind: Literal["fisor"] = "fisor"
    violations: tuple[Annotated[Any, OneOf("violation")], ...] = Field((CostConfig(),), min_length=1)
    safe: float = Field(-1.0, lt=0)
    unsafe: float = Field(25.0, gt=0)
    expectile: float = Field(0.9, gt=0, lt=1)
    value: str | None = None
    beta: float = Field(3.0, ge=0)
    max_weight: float = Field(100.0, ge=1)
    beta_unsafe: float = Field(5.0, ge=0)
    max_unsafe: float = Field(150.0, ge=1)

    def build(self, model: Model, total_updates: int, runtime: Runtime, policy: Policy | None = None) -> "FISOR":
        """Return the algorithm.

        Args:
            model: The feasibility to train, on its device.
            total_updates: Length of the policy's learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.
            policy: The policy to train, on the same device.

        Raises:
            ConfigError: If the parts do not fit each other, or a violation is read from what there is not.
            CheckpointError: If the value cannot be loaded.
        """
        if not isinstance(model, FeasibilityModel):
            raise ConfigError(f"algo=fisor trains no {model.config.tree()['kind']} model: set model=feasibility")
        for violation in self.violations:
            violation.check(model.spec)
        value = None if self.value is None else _value(self.value, model)
        if value is not None and policy is None:
            raise ConfigError("a value says how a policy is weighted, and none is trained: leave algo.value out")
        return FISOR(self, model, policy, value, total_updates, runtime)


class FISOR(Critics[FeasibilityModel]):
    """See `FISORConfig`."""

    config: FISORConfig

    def __init__(
        self,
        config: FISORConfig,
        model: FeasibilityModel,
        policy: Policy | None,
        value: ValueModel | None,
        total_updates: int,
        runtime: Runtime,
    ) -> None:
        """Keep the value; see `FISORConfig.build`."""
        super().__init__(config, model, policy, total_updates, runtime)
        self.value = value

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`; a resumed run asks the value it had, also if its folder holds another by then."""
        return super().beside | ({} if self.value is None else {"value": self.value})

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`."""
        needs = super().needs
        for violation in self.config.violations:
            needs = needs.joined(violation.needs)
        return needs

    def learn(self, batch: Mapping[str, Any], wide: Mapping[str, Any], generator: Generator) -> dict[str, Tensor]:
        """See `Critics.learn`: V_h first, then Q_h towards the new V_h."""
        model, obs, actions = self.model, batch["obs"], self.model.actions(batch)
        with self.runtime.autocast():
            danger = self.target.q(obs, actions)
            v_losses = expectile_loss(danger - model.v(obs, generator), 1 - self.config.expectile)
        v_loss = self.descend(v_losses, batch["weight"])
        with self.runtime.autocast():
            with torch.no_grad():
                goal = reach(self.violation(batch), model.v(batch["next_obs"], generator), batch["discount"])
            q_losses = ((model.judge(obs, actions, generator) - goal) ** 2).mean(0)
        return {"train/v_loss": v_loss, "train/q_loss": self.descend(q_losses, usable(batch))}

    def violation(self, batch: Mapping[str, Any]) -> Tensor:
        """Return h of every chunk, (B,)."""
        first = self.model.spec.n_obs_steps - 1
        bad = torch.stack([violation.violated(batch, first) for violation in self.config.violations]).any(0)
        return torch.where(bad, self.config.unsafe, self.config.safe)

    def weights(self, batch: Mapping[str, Any]) -> Tensor:
        """See `Critics.weights`."""
        config, obs = self.config, batch["obs"]
        v, q = self.target.v(obs), self.target.q(obs, self.target.actions(batch))
        earns = torch.ones_like(v)
        if self.value is not None:
            spec = self.value.spec
            own = narrowed(batch, spec.n_obs_steps, spec.horizon)
            earns = advantage_weights(self.value, own, config.beta, config.max_weight)
        flees = exponential_weights(v - q, config.beta_unsafe, config.max_unsafe)
        return torch.where(v > 0, flees, torch.where(q > 0, 0.0, earns))


def reach(violation: Tensor, after: Tensor, discount: Tensor) -> Tensor:
    """Return the discounted reachability target, between the least and the greatest of its arguments.

    (1 - Gamma) h + Gamma max(h, V_h(s')), and h where nothing follows (Fisac et al. 2019, eq. 7).

    Args:
        violation: h, (B,).
        after: V_h(s'), (B,).
        discount: Gamma, (B,); 0 where the episode terminated.
    """
    return (1 - discount) * violation + discount * torch.maximum(violation, after)


def _value(folder: str, model: FeasibilityModel) -> ValueModel:
    """Load the value that weighs actions, and check that it can judge the batches of a feasibility."""
    value = load_part(folder, "model", model.device)
    if not isinstance(value, ValueModel):
        raise ConfigError(f"{folder} holds no value: name a run of algo=iql or algo=cal_ql by algo.value")
    mine, theirs = model.spec, value.spec
    unseen = [f"'{key}'" for key, shape in theirs.obs_shapes.items() if mine.obs_shapes.get(key) != shape]
    if unseen or mine.action_names != theirs.action_names:
        raise ConfigError(
            f"the value {folder} is not for these data: "
            + (f"it looks at {', '.join(unseen)}, which the model does not" if unseen else "its actions are others")
        )
    if theirs.n_obs_steps > mine.n_obs_steps or theirs.chunk > mine.chunk:
        raise ConfigError(
            f"the value {folder} judges {theirs.chunk} actions after {theirs.n_obs_steps} observations: set "
            f"model.n_action_steps={max(theirs.chunk, mine.chunk)} and "
            f"model.n_obs_steps={max(theirs.n_obs_steps, mine.n_obs_steps)}"
        )
    return value.requires_grad_(False)
