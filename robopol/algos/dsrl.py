"""DSRL (Wagenmaker et al. 2025, arXiv 2506.15799): a frozen policy made better by the noise that it begins from."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Remembers, Trained
from robopol.algos.critics import usable
from robopol.algos.latent import LatentSAC, LatentSACConfig, noise_spec
from robopol.algos.learning import Learning
from robopol.algos.optimizer import AdamW
from robopol.algos.sharing import executed, sharing
from robopol.data.windows import narrowed
from robopol.models import Model
from robopol.models.q import QConfig
from robopol.networks.precision import Runtime
from robopol.policies import Policy


class DSRLConfig(LatentSACConfig):
    """Noise-aliased DSRL: values of actions, learned as for SAC, and of the noise that leads to them.

    Beside what `LatentSACConfig` says, with R the reward and Gamma the discount of a chunk
    (`robopol.data.windows.Batch`), w' ~ pi(s') and Q' the target:

        y = R + Gamma min_k Q'_k(s', f(s', w'))  [- Gamma alpha log pi(w'|s'), if paid]
        L_Q = sum_k (Q_k(s, a) - y)^2, of any recorded actions
        L_W = sum_k (W_k(s, w) - Q_k(s, f(s, w)))^2
        L_pi = alpha log pi(w|s) - min_k W_k(s, w),  w ~ pi(s)

    Many noises lead to one plan; so what Q learns of it counts for all of them. The magnitude has no effect as
    released, and is 1.

    Attributes:
        prior: Share of the noises w of L_W that are the base policy's own, N(0, I); the others are the actor's. 1 as
            released, where W is asked for corners of the box that it was never taught.
        noise_delay: Updates of Q for one of W.
    """

    kind: Literal["dsrl"] = "dsrl"  # type: ignore[assignment]
    prior: float = Field(0.5, ge=0, le=1)
    noise_delay: int = Field(2, ge=1)

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
        return DSRL(self, policy, self.critics(model), total_updates, runtime)


class DSRL(LatentSAC):
    """See `DSRLConfig`.

    Attributes:
        noise_model: W.
    """

    config: DSRLConfig

    def __init__(
        self, config: DSRLConfig, base: Policy, critics: QConfig, total_updates: int, runtime: Runtime
    ) -> None:
        """Make actor and critics; see `DSRLConfig.build`."""
        super().__init__(config, base, critics, executed(base), total_updates, runtime)
        self.noise_model = sharing(critics, base, noise_spec(base, config))
        self.noise_optimizer = AdamW(list(self.noise_model.parameters()), (0.9, 0.999), 0.0)
        self.noise_model_learns = Learning(self.noise_model)
        self.actor_learns = Learning(self.policy, judges=[self.noise_model])

    @property
    def trained(self) -> dict[str, Trained]:
        """See `Algorithm.trained`."""
        return super().trained | {"noise_model": self.noise_model}

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return super().beside | {"noise_optimizer": self.noise_optimizer}

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
            told |= self.improve(own, generator)
        self.follow()
        return told

    def judged(self, batch: Mapping[str, Any], generator: Generator) -> tuple[Tensor, Tensor]:
        """See `Soft.judged`; by W, of noises."""
        drawn = self.drawn(batch["obs"], generator)
        return drawn.log_prob, self.noise_model.q(batch["obs"], drawn.action, generator)

    def fit_noise_model(self, batch: Mapping[str, Any], generator: Generator) -> Tensor:
        """Teach every head of W what the same head of Q says of the plans that noises lead to; return the loss."""
        obs, rows = batch["obs"], len(batch["weight"])
        with torch.no_grad(), self.runtime.autocast():
            noise = self.normal(rows, generator)
            own = self.drawn(obs, generator).action
            drawn = torch.rand(rows, 1, 1, generator=generator, device=own.device) < self.config.prior
            noise = torch.where(drawn, noise, own)
            goal = self.model.q(obs, self.decode(obs, noise), generator)
        with self.noise_model_learns, self.runtime.autocast():
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
