"""TD3 (Fujimoto et al. 2018, arXiv 1802.09477): a deterministic actor under twin critics that are not over-hopeful."""

import copy
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Remembers
from robopol.algos.off_policy import OffPolicy, OffPolicyConfig, actor_and_critics
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.q import QModel
from robopol.networks.ema import Polyak
from robopol.networks.precision import Runtime
from robopol.policies import Policy
from robopol.policies.deterministic import DeterministicPolicy


class TD3Config(OffPolicyConfig):
    """Twin delayed deterministic policy gradients; defaults of the authors' present code.

    With Q' and mu' the targets, Gamma the discount (0 where the episode terminated) and all noise in units of half the
    width of an action's bounds:

        a' = mu'(s') + clip(target_noise N(0, 1), -noise_clip, noise_clip), clipped to the bounds
        L_Q = sum_k (Q_k(s, a) - r - Gamma min_k Q'_k(s', a'))^2
        L_mu = -Q_1(s, mu(s))

    Attributes:
        exploration: Standard deviation of the noise on what is tried.
        target_noise: Standard deviation of the noise on the target's actions; 0 draws none.
        noise_clip: Its largest size.
        delay: Updates of the critics for one of the policy and of all targets.
    """

    kind: Literal["td3"] = "td3"
    exploration: float = Field(0.1, ge=0)
    target_noise: float = Field(0.2, ge=0)
    noise_clip: float = Field(0.5, ge=0)
    delay: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _clips_what_is_drawn(self) -> Self:
        if self.target_noise == 0 and self.noise_clip != type(self).model_fields["noise_clip"].default:
            raise ValueError("noise_clip is the largest size of noise that target_noise=0 does not draw: leave it out")
        return self

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "TD3":
        """Return the algorithm.

        Args:
            policy: The policy to train, on its device.
            model: The critics to train, on the same device.
            total_updates: When the expectile has come down; the rates stay.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If the policy is not deterministic, the model is no Q, either is not of single actions, or an
                action has no bounds.
        """
        both = actor_and_critics(policy, DeterministicPolicy, model, "td3", "deterministic")
        return TD3(self, *both, total_updates, runtime)


class TD3(OffPolicy[DeterministicPolicy]):
    """See `TD3Config`.

    Attributes:
        target_policy: The policy's copy that follows.
    """

    config: TD3Config

    def __init__(
        self, config: TD3Config, policy: DeterministicPolicy, model: QModel, total_updates: int, runtime: Runtime
    ) -> None:
        """Make the policy's target; see `TD3Config.build`."""
        super().__init__(config, policy, model, total_updates, runtime)
        self.target_policy: DeterministicPolicy = copy.deepcopy(policy).eval().requires_grad_(False)
        self._policy_following = Polyak(self.target_policy, policy)
        self.low, self.high = (torch.tensor(side, device=model.device) for side in _bounds(policy))
        self.half = (self.high - self.low) / 2

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return super().beside | {"target_policy": self.target_policy}

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`: the critics; at every ``delay``-th update the policy, then all targets."""
        q_loss = self.fit_critics(batch, step, generator)
        told = {"train/loss": q_loss, "train/q_loss": q_loss}
        if (step + 1) % self.config.delay == 0:
            with self.actor_learns, self.runtime.autocast():
                loss, more = self.policy_loss(batch, self.policy(batch["obs"]))
            told |= {"train/policy_loss": self.fit_policy(loss), **more}
            self.follow()
            self._policy_following.update(self.config.polyak)
        return told

    def policy_loss(self, batch: Mapping[str, Any], action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_mu of the policy's own actions (B, 1, A), and what else to log."""
        return -self.model.first(batch["obs"], action).mean(), {}

    def goals(self, batch: Mapping[str, Any], generator: Generator) -> Tensor:
        """See `OffPolicy.goals`."""
        config, action = self.config, self.target_policy(batch["next_obs"])
        if config.target_noise > 0:
            noise = torch.randn(action.shape, generator=generator, device=action.device)
            noise = (config.target_noise * noise).clamp(-config.noise_clip, config.noise_clip)
            action = (action + noise * self.half).clamp(self.low, self.high)
        goal: Tensor = batch["reward"] + batch["discount"] * self.least(batch["next_obs"], action, generator)
        return goal

    def tried(self, obs: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """See `OffPolicy.tried`; with noise, clipped to the bounds."""
        action: Tensor = self.policy(obs)
        noise = torch.randn(action.shape, generator=generator, device=action.device)
        return (action + self.config.exploration * noise * self.half).clamp(self.low, self.high)


def _bounds(policy: Policy) -> tuple[tuple[float, ...], tuple[float, ...]]:
    low, high = policy.spec.action_low, policy.spec.action_high
    if not torch.tensor([low, high]).isfinite().all():
        raise ConfigError("noise is in units of the action bounds, and some action has none: use algo=sac")
    return low, high
