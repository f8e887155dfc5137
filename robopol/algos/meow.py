"""MEow (Chao et al. 2024, arXiv 2405.13629): one flow acts and judges, so one loss is all that there is to learn."""

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Algorithm, AlgorithmConfig, Explored, Remembers, Trained
from robopol.algos.critics import usable
from robopol.algos.learning import Learning
from robopol.algos.optimizer import AdamW
from robopol.data.windows import Transition
from robopol.errors import ConfigError
from robopol.networks.ema import Polyak
from robopol.networks.precision import Runtime
from robopol.policies import Needs, Policy
from robopol.policies.meow import MEowPolicy


class MEowConfig(AlgorithmConfig):
    """Soft Q-learning where Q, soft V and the policy are one energy-based flow; defaults as released for Hopper.

    With V' the two heads of the target, which follows, and Gamma the discount (0 where the episode terminated):

        y = r + Gamma min_k V'_k(s')
        L = mean_k (Q_k(s, a) - y)^2

    The soft value is exact, so that nothing is sampled for it, and no policy is improved: it is exp((Q - V) / alpha).
    The heads differ by a learned shift b_k(s) alone, which cancels in the policy ("learnable reward shifting" and
    "shifting-based clipped double Q-learning"). The temperature alpha, in the unit of the reward, is the policy's own,
    and stays: Q and V scale with it.

    Attributes:
        lr: Learning rate of Adam, of everything; it stays.
        discount: gamma, of each step.
        polyak: Share by which the target follows at each update. The released ones lie between 0.0001 (Ant) and 0.005.
        clip_norm: Largest norm of the whole gradient; None leaves it.
        edge: Actions that were taken count as if at least this share of half their range inside their bounds. At the
            bounds Q has no end, and what lies there outweighs everything else; released is 1e-5.
    """

    kind: Literal["meow"] = "meow"
    lr: float = Field(1e-3, gt=0)
    discount: float = Field(0.99, ge=0, le=1)
    polyak: float = Field(0.005, ge=0, le=1)
    clip_norm: float | None = Field(30.0, gt=0)
    edge: float = Field(1e-3, ge=1e-5, lt=1)

    def build(self, policy: Policy, total_updates: int, runtime: Runtime) -> "MEow":
        """Return the algorithm.

        Args:
            policy: The flow to train, on its device.
            total_updates: Unused: the rate stays.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If the policy is no such flow over the box of single actions.
        """
        if not isinstance(policy, MEowPolicy):
            kind = policy.config.tree()["kind"]
            raise ConfigError(f"algo=meow trains a meow policy, not a {kind} policy: set policy=meow")
        if (policy.spec.n_obs_steps, policy.spec.horizon) != (1, 1):
            raise ConfigError(
                "algo=meow learns from single transitions: set policy.n_obs_steps=1, policy.n_action_steps=1 and "
                "policy.horizon=1"
            )
        if policy.config.action_normalization != "bounds" or policy.flow.box != 1:
            raise ConfigError(
                f"policy.action_normalization={policy.config.action_normalization} and policy.box={policy.flow.box} "
                "hold other actions than the world executes, so V would count what cannot be done: set policy.box=1 "
                "and set policy.action_normalization=bounds"
            )
        return MEow(self, policy, runtime)


class MEow(Algorithm):
    """See `MEowConfig`.

    Attributes:
        policy: The flow, which acts and judges as it stands.
        target: Its copy that follows, asked for V alone.
    """

    def __init__(self, config: MEowConfig, policy: MEowPolicy, runtime: Runtime) -> None:
        """Make the target and the optimiser; see `MEowConfig.build`."""
        self.config, self.policy, self.runtime = config, policy, runtime
        self.learning = Learning(policy)
        self.target: MEowPolicy = copy.deepcopy(policy).requires_grad_(False)
        self._following = Polyak(self.target, policy)
        self._weights = list(policy.parameters())
        self.optimizer = AdamW(self._weights, (0.9, 0.999), 0.0)
        low, high = torch.tensor([policy.spec.action_low, policy.spec.action_high], device=policy.device)
        inside = config.edge * (high - low) / 2
        self._low, self._high = low + inside, high - inside

    @property
    def trained(self) -> dict[str, Trained]:
        """See `Algorithm.trained`."""
        return {"policy": self.policy}

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return {"target": self.target, "optimizer": self.optimizer}

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`."""
        return Needs(transition=Transition(1, self.config.discount))

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`: the flow, then its target. A loss that is no number is told, not hidden."""
        action = torch.minimum(torch.maximum(batch["action"], self._low), self._high)
        with self.runtime.autocast():
            goal = self.goals(batch)
            with self.learning:
                said = self.policy.q(batch["obs"], action)
        loss = ((said - goal) ** 2 * usable(batch)).mean()
        loss.backward()
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self._weights, limit)
        self.optimizer.step(self.config.lr)
        self._following.update(self.config.polyak)
        return {
            "train/loss": loss.detach(),
            "train/grad_norm": norm,
            "train/q": said.detach().mean(),
            "train/goal": goal.mean(),
        }

    @torch.no_grad()
    def goals(self, batch: Mapping[str, Any]) -> Tensor:
        """Return what both heads of Q are to say of the actions of a batch, (B,)."""
        goal: Tensor = batch["reward"] + batch["discount"] * self.target.v(batch["next_obs"]).amin(0)
        return goal

    def explore(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.Explores`; samples."""
        with torch.no_grad(), self.runtime.autocast():
            return Explored(self.policy.sample(obs, 1, generator)[0][:, 0].float())

    def deployed(self) -> Policy:
        """See `Algorithm.deployed`; the flow as it stands."""
        return self.policy
