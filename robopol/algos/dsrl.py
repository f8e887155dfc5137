"""DSRL (Wagenmaker et al. 2025, arXiv 2506.15799): a frozen policy made better by the noise that it begins from."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from robopol.algos.algorithm import Explored, by_owner, owned
from robopol.algos.critics import usable
from robopol.algos.optimizer import AdamW
from robopol.algos.sac import SAC, SACConfig
from robopol.algos.sharing import executed, sharing
from robopol.config import parse
from robopol.data.normalizer import Normalizer
from robopol.data.windows import narrowed, newest
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.q import QConfig, QModel
from robopol.networks.precision import Runtime
from robopol.policies import Part, Policy, PolicySpec
from robopol.policies.policy import standard_normal
from robopol.policies.squashed_gaussian import Sample, SquashedGaussianConfig
from robopol.steering.learned_noise import LearnedNoise
from robopol.steering.steered import SteeredPolicy


class DSRLConfig(SACConfig):
    """Noise-aliased DSRL: values of actions, learned as for SAC, and of the noise that leads to them.

    The base policy's plan f(s, w) is a function of its noise w alone, and is never differentiated. An actor pi chooses
    w within [-magnitude, magnitude]; the first h actions are executed. With R the reward and Gamma the discount of a
    chunk (`robopol.data.windows.Batch`), w' ~ pi(s') and Q' the target:

        y = R + Gamma min_k Q'_k(s', f(s', w'))  [- Gamma alpha log pi(w'|s'), if paid]
        L_Q = sum_k (Q_k(s, a) - y)^2, of any recorded actions
        L_W = sum_k (W_k(s, w) - Q_k(s, f(s, w)))^2
        L_pi = alpha log pi(w|s) - min_k W_k(s, w),  w ~ pi(s)

    Many noises lead to one plan; so what Q learns of it counts for all of them. Before the actor has learned anything,
    in the warm-up, the base policy acts as it is.

    Chunks and the scale of observations are the base policy's, whatever ``model`` says of them. The critics look at its
    histories, the actor at the newest observation.

    Attributes:
        paid: Whether chance in what comes next is worth something, as released. It is in every decision of a long
            noise, so that with rewards for success alone whoever takes longer would earn more.
        magnitude: Greatest size of an entry of the noise. As released it has no effect and is 1.
        prior: Share of the noises w of L_W that are the base policy's own, N(0, I); the others are the actor's. 1 as
            released, where W is asked for corners of the box that it was never taught.
        noise_delay: Updates of Q for one of W.
        actor: What chooses the noise, when it is evaluated, too, by samples.
    """

    kind: Literal["dsrl"] = "dsrl"  # type: ignore[assignment]
    paid: bool = False
    target_entropy: float | None = 0.0
    magnitude: float = Field(1.5, gt=0)
    prior: float = Field(0.5, ge=0, le=1)
    noise_delay: int = Field(2, ge=1)
    actor: SquashedGaussianConfig = SquashedGaussianConfig(hidden=(256, 256, 256), deterministic=False)

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "DSRL":
        """Return the algorithm.

        Args:
            policy: The base policy, on its device; it is not changed.
            model: Says what critics are like; they are made anew.
            total_updates: When the expectile has come down; the rates stay.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If noise alone does not decide what the policy does, its observations cannot be shared, or the
                model is no Q.
        """
        if not isinstance(model, QModel):
            raise ConfigError(f"algo=dsrl trains a q, not a {model.config.tree()['kind']} model: set model=q")
        return DSRL(self, policy, model.config, total_updates, runtime)


class DSRL(SAC):
    """See `DSRLConfig`.

    Attributes:
        base: The frozen policy.
        policy: The actor that chooses its noise.
        noise_model: W.
    """

    config: DSRLConfig

    def __init__(
        self, config: DSRLConfig, base: Policy, critics: QConfig, total_updates: int, runtime: Runtime
    ) -> None:
        """Make actor and critics; see `DSRLConfig.build`."""
        self.base = base.eval().requires_grad_(False)
        noise = _noise_spec(base, config.magnitude)
        choice = noise.model_copy(update={"n_obs_steps": 1, "horizon": 1})
        actions = executed(base)
        actor = sharing(config.actor, base, choice)
        model, self.noise_model = (sharing(critics, base, spec) for spec in (actions, noise))
        super().__init__(config, actor, model, total_updates, runtime)
        self.noise_optimizer = AdamW(list(self.noise_model.parameters()), (0.9, 0.999), 0.0)
        self._steered = SteeredPolicy(self.base, [LearnedNoise(actor, base)])
        if all(part.fitted for part in base.modules() if isinstance(part, Normalizer)):  # else a run is resumed
            rows = {key: torch.zeros(1, noise.n_obs_steps, *shape) for key, shape in base.spec.obs_shapes.items()}
            # what cannot be steered so is refused now
            self.decode({key: row.to(base.device) for key, row in rows.items()}, self._normal(1))

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`: Q, W, then actor and temperature, then the target."""
        spec = self.model.spec
        own = narrowed(batch, spec.n_obs_steps, spec.horizon)
        own["action"] = self.model.actions(own)
        q_loss = self.fit_critics(own, step, generator)
        told = {"train/loss": q_loss, "train/q_loss": q_loss}
        if (step + 1) % self.config.noise_delay == 0:
            told["train/w_loss"] = self.fit_noise_model(own, generator)
        if (step + 1) % self.config.delay == 0:
            told |= self.improve(self.noise_model, own["obs"], generator)
        self.follow()
        return told

    def fit_noise_model(self, batch: Mapping[str, Any], generator: Generator) -> Tensor:
        """Teach every head of W what the same head of Q says of the plans that noises lead to; return the loss."""
        obs, rows = batch["obs"], len(batch["weight"])
        with torch.no_grad(), self.runtime.autocast():
            noise = self._normal(rows, generator)
            own = self.drawn(obs, generator).action
            drawn = torch.rand(rows, 1, 1, generator=generator, device=own.device) < self.config.prior
            noise = torch.where(drawn, noise, own)
            goal = self.model.q(obs, self.decode(obs, noise), generator)
        with self.runtime.autocast():
            losses = ((self.noise_model.q(obs, noise, generator) - goal) ** 2).sum(0)
        loss = (losses * usable(batch)).mean()
        loss.backward()
        self.noise_optimizer.step(self.config.critic_lr)
        return loss.detach()

    def goals(self, batch: Mapping[str, Any], generator: Generator) -> Tensor:
        """See `OffPolicy.goals`."""
        drawn = self.drawn(batch["next_obs"], generator)
        worth = self.least(batch["next_obs"], self.decode(batch["next_obs"], drawn.action), generator)
        if self.config.paid:
            worth = worth - self.log_alpha.exp() * drawn.log_prob
        goal: Tensor = batch["reward"] + batch["discount"] * worth
        return goal

    def drawn(self, obs: Mapping[str, Tensor], generator: Generator) -> Sample:
        """See `SAC.drawn`; in states of the base policy's histories."""
        return self.policy.sample(newest(obs, 1), generator)

    @torch.no_grad()
    def decode(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Return the actions that are executed of the plans that noises (B, 1, D) lead to, (B, h, A)."""
        plan = self.base.plan_from(obs, noise.unflatten(-1, self.base.noise_shape or ()))[:, 0]
        first = self.base.spec.n_obs_steps - 1
        low, high = (plan.new_tensor(side) for side in (self.base.spec.action_low, self.base.spec.action_high))
        return plan[:, first : first + self.base.spec.n_action_steps].clamp(low, high)

    def tried(self, obs: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """See `OffPolicy.tried`; samples of the actor, decoded."""
        return self.decode(obs, self.drawn(obs, generator).action)

    def warm_up(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.WarmsUp`; the base policy."""
        rows = len(next(iter(obs.values())))
        return Explored(self.decode(obs, self._normal(rows, generator)).float())

    def deployed(self) -> Policy:
        """See `Algorithm.deployed`; the base policy, steered by the actor as it stands."""
        return self._steered

    def parts(self) -> dict[str, Part]:
        """See `Algorithm.parts`; the steered policy, and the target of Q."""
        return {"policy": self._steered, "model": self.target}

    def state(self) -> dict[str, Tensor]:
        """See `Algorithm.state`."""
        state = super().state() | owned("base", self.base.state_dict())
        state |= owned("noise_model", self.noise_model.state_dict())
        return state | owned("noise_optimizer", self.noise_optimizer.state())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Algorithm.load_state`."""
        super().load_state(state)
        owners = by_owner(state)
        self.base.load_state_dict(owners["base"])
        self.noise_model.load_state_dict(owners["noise_model"])
        self.noise_optimizer.load_state(owners["noise_optimizer"])

    def _normal(self, rows: int, generator: Generator | None = None) -> Tensor:
        """Draw the base policy's own noise, (B, 1, D)."""
        return standard_normal((rows, 1, math.prod(self.base.noise_shape or ())), generator, self.base.device)


def _noise_spec(base: Policy, magnitude: float) -> PolicySpec:
    """Return the contract of what chooses the noise of a policy: every entry of it is one of an action.

    Raises:
        ConfigError: If the policy begins from no noise.
    """
    if base.noise_shape is None:
        raise ConfigError(
            f"algo=dsrl chooses the noise that a policy begins from, and a {base.config.tree()['kind']} policy begins "
            "from none: fine-tune a diffusion or a flow policy"
        )
    size = math.prod(base.noise_shape)
    told = {
        "action_names": [f"noise {i}" for i in range(size)],
        "action_low": [-magnitude] * size,
        "action_high": [magnitude] * size,
        "action_space": "noise",
        "horizon": base.spec.n_obs_steps,
        "n_action_steps": 1,
    }
    return parse(PolicySpec, base.spec.tree() | told)
