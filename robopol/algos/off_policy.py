"""What actor-critic methods share that learn from single transitions, whoever acted in them."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Algorithm, AlgorithmConfig, Explored, Remembers, Trained
from robopol.algos.critics import usable
from robopol.algos.learning import Learning
from robopol.algos.optimizer import AdamW
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.q import QModel
from robopol.networks.ema import Polyak
from robopol.networks.precision import Runtime
from robopol.policies import Needs, Part, Policy
from robopol.policies.actor import Actor

P = TypeVar("P", bound=Actor)


class OffPolicyConfig(AlgorithmConfig):
    """How actor and critics are trained; by Adam, at rates that stay.

    Attributes:
        lr: Learning rate of the policy.
        critic_lr: Learning rate of the critics.
        polyak: Share by which a target follows at each update of it.
        target_heads: Heads, drawn anew for every update, whose least is believed of what comes next (Chen et al. 2021,
            REDQ); None asks all.
        expectile: tau of the critics' loss at the first update, |tau - 1(u < 0)| u^2 of the error u = y - Q, twice. It
            comes down to 0.5, the plain square, evenly until the last: at first the best that may follow counts, in
            the end what does (Motoki et al. 2025, annealed Q-learning, begin at 0.9).
    """

    lr: float = Field(3e-4, gt=0)
    critic_lr: float = Field(3e-4, gt=0)
    polyak: float = Field(0.005, ge=0, le=1)
    target_heads: int | None = Field(None, ge=1)
    expectile: float = Field(0.5, ge=0.5, lt=1)

    trains: ClassVar[tuple[str, ...]] = ("policy", "model")


class OffPolicy(Algorithm, Generic[P]):
    """An actor, critics and their target.

    Attributes:
        policy: The actor, which acts as it stands.
        model: The critics that learn.
        target: Their copy that follows; what is saved.
    """

    config: OffPolicyConfig

    def __init__(self, config: OffPolicyConfig, policy: P, model: QModel, total_updates: int, runtime: Runtime) -> None:
        """Make the target and the optimisers.

        Args:
            config: How they are trained.
            policy: The actor, on its device.
            model: The critics, on the same device.
            total_updates: When the expectile has come down.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If more heads are to be asked than there are.
        """
        if (config.target_heads or 1) > model.config.ensemble:
            raise ConfigError(
                f"algo.target_heads={config.target_heads} of {model.config.ensemble} heads cannot be asked: set "
                f"model.ensemble={config.target_heads} or more"
            )
        self.config, self.policy, self.model, self.runtime = config, policy, model, runtime
        self.total_updates = total_updates
        self.target: QModel = copy.deepcopy(model).eval().requires_grad_(False)
        self._following = Polyak(self.target, model)
        # critics that drop out do it in their targets, too, and where the policy learns from them (DroQ)
        self.critics_learn, self.actor_learns = Learning(model, self.target), Learning(policy, judges=[model])
        self._actor_weights = list(policy.parameters())
        self.policy_optimizer = AdamW(self._actor_weights, (0.9, 0.999), 0.0)
        self.critic_optimizer = AdamW(list(model.parameters()), (0.9, 0.999), 0.0)

    @property
    def trained(self) -> dict[str, Trained]:
        """See `Algorithm.trained`."""
        return {"policy": self.policy, "model": self.model}

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        optimizers = {"policy_optimizer": self.policy_optimizer, "critic_optimizer": self.critic_optimizer}
        return {"target": self.target, **optimizers}

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`."""
        return self.model.needs

    @abstractmethod
    def goals(self, batch: Mapping[str, Any], generator: Generator) -> Tensor:
        """Return what every head of Q is to say of the actions of a batch, (B,), without gradients."""

    def explore(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.Explores`; as many actions as critics judge."""
        with torch.no_grad(), self.runtime.autocast():
            return Explored(self.tried(obs, generator).float())

    @abstractmethod
    def tried(self, obs: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """Return the actions (B, h, A) that are tried in states of histories key -> (B, 1, ...)."""

    def least(self, obs: Mapping[str, Tensor], action: Tensor, generator: Generator) -> Tensor:
        """Return what the least hopeful of the target's heads that are asked says, (B,)."""
        asked = self.config.target_heads
        if asked is None or asked == self.model.config.ensemble:
            return self.target.q(obs, action, generator).amin(0)
        chosen = torch.randperm(self.model.config.ensemble, generator=generator, device=action.device)[:asked]
        return self.target.q(obs, action, generator, chosen).amin(0)

    def fit_critics(self, batch: Mapping[str, Any], step: int, generator: Generator) -> Tensor:
        """Move all heads towards `goals`; return their loss, the sum over the heads, without gradients."""
        with self.critics_learn, self.runtime.autocast():
            with torch.no_grad():
                goal = self.goals(batch, generator)
            said = self.model.q(batch["obs"], batch["action"], generator)
        with torch.no_grad():
            errors = said - goal
            slopes = errors * (usable(batch) * (2 / len(goal)))  # what autograd would find, in a tenth of the calls
            tau = self.expectile(step)
            if tau > 0.5:
                slopes *= torch.where(errors < 0, 2 * tau, 2 - 2 * tau)
            loss = torch.dot(errors.flatten(), slopes.flatten()) / 2
        said.backward(slopes.to(said.dtype))
        self.critic_optimizer.step(self.config.critic_lr)
        return loss

    def expectile(self, step: int) -> float:
        """Return the expectile of an update."""
        return 0.5 + (self.config.expectile - 0.5) * max(0.0, 1 - step / self.total_updates)

    def fit_policy(self, loss: Tensor) -> Tensor:
        """Move the policy down a loss, and nothing else that it depends on; return it without gradients."""
        loss.backward(inputs=self._actor_weights)
        self.policy_optimizer.step(self.config.lr)
        return loss.detach()

    def follow(self) -> None:
        """Let the critics' target follow."""
        self._following.update(self.config.polyak)

    def deployed(self) -> Policy:
        """See `Algorithm.deployed`; the policy as it stands."""
        return self.policy

    def parts(self) -> dict[str, Part]:
        """See `Algorithm.parts`; the policy, and the critics' target."""
        return super().parts() | {"model": self.target}


def actor_and_critics(
    policy: Policy, kind: type[P], model: Model, algo: str, wanted: str, chunks: bool = False
) -> tuple[P, QModel]:
    """Check that a policy and a model can be trained together by an algorithm.

    Args:
        policy: The policy.
        kind: What it must be.
        model: The model, which must be a Q.
        algo: The algorithm.
        wanted: What ``kind`` is called.
        chunks: Whether several actions may be chosen and judged at once.

    Returns:
        Both.

    Raises:
        ConfigError: If they cannot.
    """
    if not isinstance(policy, kind):
        raise ConfigError(
            f"algo={algo} trains a {wanted} policy, not a {policy.config.tree()['kind']}: set policy={wanted}; from a "
            "saved policy of another kind expo, dsrl, dppo, fpo and iql go on, while RLPD begins from what it was "
            "cloned from (data.demos.uri) and from nothing else"
        )
    if not isinstance(model, QModel):
        raise ConfigError(f"algo={algo} trains a q, not a {model.config.tree()['kind']} model: set model=q")
    windows = {(part.spec.n_obs_steps, part.spec.horizon, part.spec.n_action_steps) for part in (policy, model)}
    if chunks:
        taken = policy.spec.n_action_steps
        if windows != {(1, taken, taken)}:
            raise ConfigError(
                f"algo={algo} judges the actions that are executed, all that there are: set n_obs_steps=1 and equal "
                "policy.horizon, policy.n_action_steps and model.n_action_steps, 1 for single transitions"
            )
    elif windows != {(1, 1, 1)}:
        raise ConfigError(
            f"algo={algo} learns from single transitions: set n_obs_steps=1, n_action_steps=1 and, of the policy, "
            "horizon=1, for policy and model"
        )
    return policy, model
