"""What policy-gradient methods share that learn from the last rollout of the policy as it stands."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, repeat, starmap
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from robopol.algos.advantages import Outcomes, RewardScale, advantages
from robopol.algos.algorithm import Algorithm, AlgorithmConfig, Explored, Remembers, Trained
from robopol.algos.optimizer import AdamW
from robopol.algos.scoring import Said, Scoring
from robopol.algos.scoring.density import DensityConfig
from robopol.algos.surrogates import UnclippedConfig
from robopol.config import OneOf
from robopol.data.normalizer import Normalizer
from robopol.data.windows import newest
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.state_value import StateValueModel
from robopol.networks.precision import Runtime
from robopol.policies import Needs, Part, Policy

BLOCK = 4096
"""Rows for which the old policy is asked at once."""


class OnPolicyConfig(AlgorithmConfig):
    """What all on-policy algorithms are told; the discount is the model's.

    Attributes:
        scoring: How choices are scored: by a Gaussian's density, as denoising steps, by a flow's own loss.
        critic_lr: Learning rate of the value network.
        gae_lambda: lambda of generalised advantage estimation, of each decision.
        normalize_advantage: Whether advantages get mean 0 and standard deviation 1, in each minibatch or over the
            rollout.
        scale_rewards: Whether rewards are divided by the standard deviation of the discounted return so far.
        reward_limit: Scaled rewards are clipped to [-limit, limit].
        adam_eps: Added to the root of Adam's second moment.
    """

    scoring: Annotated[Any, OneOf("scoring")] = DensityConfig()
    critic_lr: float = Field(3e-4, gt=0)
    gae_lambda: float = Field(0.95, ge=0, le=1)
    normalize_advantage: Literal["minibatch", "rollout", "no"] = "minibatch"
    scale_rewards: bool = False
    reward_limit: float = Field(10.0, gt=0)
    adam_eps: float = Field(1e-5, gt=0)

    trains: ClassVar[tuple[str, ...]] = ("policy", "model")

    @model_validator(mode="after")
    def _limits_what_is_scaled(self) -> Self:
        if not self.scale_rewards and self.reward_limit != type(self).model_fields["reward_limit"].default:
            raise ValueError("reward_limit clips rewards that are scaled, and these are not: set scale_rewards=true")
        return self


class Lesson(NamedTuple):
    """A rollout, as losses read it; every tensor has one row for each decision.

    Attributes:
        obs: Histories, where what is seen of them depends on what is trained; else nothing.
        seen: What the policy sees, where it does not.
        judged: What the value network sees, where it does not.
        trace: What was left with each choice.
        old: What the policy said of it.
        advantage: (M,).
        goal: What V is to say, (M,).
        value: What it said, (M,).
    """

    obs: Mapping[str, Tensor]
    seen: Tensor | None
    judged: Tensor | None
    trace: Mapping[str, Tensor]
    old: Said
    advantage: Tensor
    goal: Tensor
    value: Tensor

    def rows(self, chosen: Tensor) -> "Lesson":
        """Return some decisions, by their numbers."""

        def pick(field: Any) -> Any:
            if isinstance(field, Tensor):
                return field.index_select(0, chosen)
            return None if field is None else {name: rows.index_select(0, chosen) for name, rows in field.items()}

        return Lesson(*map(pick, self))

    def split(self, sizes: Sequence[int]) -> "Iterator[Lesson]":
        """Yield all decisions, so many at once; cutting all at once is quicker than to ask for `rows` in turn."""

        def cut(field: Any) -> Iterable[Any]:
            if field is None:
                return repeat(None, len(sizes))
            if isinstance(field, Tensor):
                return field.split(sizes)
            names, columns = list(field), [rows.split(sizes) for rows in field.values()]
            parts = zip(*columns, strict=True) if names else repeat((), len(sizes))
            return (dict(zip(names, part, strict=True)) for part in parts)

        return starmap(Lesson, zip(*map(cut, self), strict=True))

    @property
    def size(self) -> int:
        """M, the number of decisions."""
        return len(self.advantage)


class OnPolicy(Algorithm):
    """A policy with its scoring, and a value network.

    An update is all that is learned from one rollout. A batch is that rollout: beside what is usual in a batch it has
    ``trace`` name -> (M, ...), ``length`` (M,), ``reward`` (M, h), ``terminated`` and ``truncated`` (M,), ``order``
    (T, N) int64, the row of the t-th decision in each environment or -1, and ``minibatch``, the decisions of a gradient
    step.

    Policy and value network are never in training mode: what is scored is what acted, with nothing left out at random.

    Running normalisers take note of a rollout after it was learned from, so that all its ratios are 1 before the first
    step.

    Attributes:
        scoring: The policy, as far as the losses look at it.
        model: The value network.
        surrogate: The objective of a row.
        rewards: The scale of the rewards, if they are scaled.
        actor_weights: What of the policy is trained.
        critic_weights: The weights of the value network.
    """

    def __init__(self, config: OnPolicyConfig, policy: Policy, model: Model, runtime: Runtime) -> None:
        """Make the scoring and the value network's optimiser.

        Args:
            config: How they are trained.
            policy: The policy, on its device.
            model: The value network, on the same device.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If the policy cannot be scored so, the model is no value of states, or a clip range is narrowed
                where there is none.
        """
        if not isinstance(model, StateValueModel):
            raise ConfigError(
                f"algo={config.tree()['kind']} trains a state_value, not a {model.config.tree()['kind']} model: set "
                "model=state_value"
            )
        self.settings, self.model, self.runtime = config, model, runtime
        self.surrogate: Any = getattr(config, "surrogate", UnclippedConfig()).build()
        self.scoring: Scoring = config.scoring.build(policy)
        clips = self.scoring.row_clips
        if clips is not None and bool((clips != 1).any()) and not self.surrogate.clips:
            raise ConfigError(
                "algo.scoring.clip_base narrows the clip range of noisy steps, and there is none in "
                f"algo={config.tree()['kind']} with the {self.surrogate.kind} surrogate: leave it at 1, or use "
                "algo.surrogate.kind=clip where the algorithm has a surrogate"
            )
        self.scoring.policy.eval()
        model.eval()
        self.rewards = RewardScale(config.reward_limit) if config.scale_rewards else None
        self.actor_weights = self.scoring.parameters
        self.critic_weights = list(model.parameters())
        self.critic_optimizer = AdamW(self.critic_weights, (0.9, 0.999), 0.0, config.adam_eps)

    @property
    def trained(self) -> dict[str, Trained]:
        """See `Algorithm.trained`."""
        return {"policy": self.scoring.policy, "model": self.model}

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        own: dict[str, nn.Module | Remembers] = {"critic_optimizer": self.critic_optimizer}
        return own if self.rewards is None else own | {"rewards": self.rewards}

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`."""
        return Needs(rollout=True)

    def explore(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.Explores`."""
        return self.scoring.explore(obs, generator)

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`: learn from a rollout, then let the running normalisers take note of it."""
        lesson, told = self.lesson(batch)
        told |= self.improve(lesson, step, generator, batch["minibatch"])
        with torch.no_grad():
            told |= self._moved(lesson)
        for part in (self.scoring.policy.observation, self.model.observation):
            if any(isinstance(module, Normalizer) and module.mode == "running" for module in part.modules()):
                part.fit({key: rows[:, -1] for key, rows in batch["obs"].items()})
        return told

    @abstractmethod
    def improve(self, lesson: Lesson, step: int, generator: Generator, minibatch: int) -> dict[str, Tensor]:
        """Learn from a rollout.

        Args:
            lesson: The rollout.
            step: As for `Algorithm.update`.
            generator: As for `Algorithm.update`.
            minibatch: Decisions of a gradient step.

        Returns:
            Scalars to log, ``train/loss`` among them.
        """

    @torch.no_grad()
    def lesson(self, batch: Mapping[str, Any]) -> tuple[Lesson, dict[str, Tensor]]:
        """Return a rollout as losses read it, and scalars to log."""
        length = self.model.spec.n_obs_steps
        judged = self.model.encode(newest(batch["obs"], length))
        value = self.model.judge(judged)
        next_value = self.model.v(newest(batch["next_obs"], length))
        advantage = self._advantages(batch, value, next_value)
        learns = any(parameter.requires_grad for parameter in self.model.observation.parameters())
        once = self.scoring.encodes_once
        seen = self.scoring.see(batch["obs"]) if once else None
        obs: Mapping[str, Tensor] = batch["obs"] if learns or not once else {}
        judging = None if learns else judged
        lesson = Lesson(obs, seen, judging, batch["trace"], {}, advantage, advantage + value, value)
        said = [self.say(part) for part in lesson.split(blocks(lesson.size))]
        old = {name: torch.cat([block[name] for block in said]) for name in said[0]}
        goal = lesson.goal
        explained = 1 - (goal - value).var(correction=0) / goal.var(correction=0).clamp(min=1e-12)
        if self.settings.normalize_advantage == "rollout":
            lesson = lesson._replace(advantage=standardized(advantage))
        return lesson._replace(old=old), {"train/explained_variance": explained}

    def _advantages(self, batch: Mapping[str, Any], value: Tensor, next_value: Tensor) -> Tensor:
        """Return the advantage of every decision, (M,)."""
        gamma, order = self.model.config.discount, batch["order"].cpu().numpy()
        made = order >= 0

        def column(rows: Tensor) -> Any:
            flat = rows.double().cpu().numpy()
            return np.where(made, flat[order], 0.0)

        reward, length = batch["reward"].double(), batch["length"]
        steps = torch.arange(reward.shape[1], device=reward.device, dtype=torch.float64)
        earned, discount = column((reward * gamma**steps).sum(1)), column(gamma ** length.double())
        terminated, truncated = column(batch["terminated"]), column(batch["truncated"])
        goes_on = (1 - terminated) * (1 - truncated) * made
        if self.rewards is not None:
            earned = self.rewards.scale(earned, discount, goes_on, made)
        outcomes = Outcomes(earned, discount * (1 - terminated), goes_on, column(value), column(next_value))
        found = np.zeros(len(value))
        found[order[made]] = advantages(outcomes, self.settings.gae_lambda)[made]
        return torch.from_numpy(found).to(value)

    def say(self, lesson: Lesson) -> Said:
        """Return what the policy, as it stands, says of the choices in a lesson."""
        seen = self.scoring.see(lesson.obs) if lesson.seen is None else lesson.seen
        return self.scoring.say(seen, lesson.trace)

    def judge(self, lesson: Lesson) -> Tensor:
        """Return what the value network, as it stands, says of the states of a lesson, (B,)."""
        if lesson.judged is not None:
            return self.model.judge(lesson.judged)
        return self.model.v(newest(lesson.obs, self.model.spec.n_obs_steps))

    def row_advantages(self, lesson: Lesson) -> Tensor:
        """Return the advantage of every row of every choice, (B, R) or (B, 1)."""
        weights = self.scoring.row_weights
        return lesson.advantage[:, None] if weights is None else lesson.advantage[:, None] * weights

    def minibatches(self, lesson: Lesson, size: int, generator: Generator) -> Iterator[Lesson]:
        """Return all decisions once in random order, in parts of nearly equal size."""
        order = torch.randperm(lesson.size, generator=generator, device=generator.device).to(lesson.advantage.device)
        count = max(1, round(lesson.size / size))
        shuffled, bounds = lesson.rows(order), [lesson.size * k // count for k in range(count + 1)]
        sizes = [last - first for first, last in pairwise(bounds)]
        if self.settings.normalize_advantage == "minibatch":
            parts = shuffled.advantage.split(sizes)
            shuffled = shuffled._replace(advantage=torch.cat([standardized(part) for part in parts]))
        return shuffled.split(sizes)

    def fit_values(self, lesson: Lesson, size: int, epochs: int, generator: Generator) -> Tensor:
        """Move V towards the goals alone; return the mean loss, without gradients."""
        losses = []
        for _ in range(epochs):
            for part in self.minibatches(lesson, size, generator):
                with self.runtime.autocast():
                    loss = ((self.judge(part) - part.goal) ** 2).mean()
                loss.backward(inputs=self.critic_weights)
                self.critic_optimizer.step(self.settings.critic_lr)
                losses.append(loss.detach())
        return torch.stack(losses).mean()

    def _moved(self, lesson: Lesson) -> dict[str, Tensor]:
        """Say how far an update went, over all of its decisions."""
        found = []
        for part in lesson.split(blocks(lesson.size)):
            said = self.say(part)
            rows = [self.scoring.log_ratio(said, part.old, part.trace), self.scoring.kl(said, part.old)]
            found.append(rows + ([self.scoring.entropy(said)] if self.scoring.has_entropy else []))
        log_ratio, divergence, *entropy = (torch.cat(rows) for rows in zip(*found, strict=True))
        ratio = log_ratio.exp()
        told = {
            "train/kl": divergence.mean(),
            "train/kl_max": divergence.max(),
            "train/ratio_kl": (ratio - 1 - log_ratio).mean(),
            "train/ratio_deviation": (ratio - 1).abs().mean(),
        }
        outside = self.surrogate.outside(ratio, self.scoring.row_clips)
        if outside is not None:
            told["train/clip_fraction"] = outside.float().mean()
        if entropy:
            told["train/entropy"] = entropy[0].mean()
        return told

    def deployed(self) -> Policy:
        """See `Algorithm.deployed`; the policy as it stands."""
        return self.scoring.policy

    def parts(self) -> dict[str, Part]:
        """See `Algorithm.parts`; the policy and the value network."""
        return super().parts() | {"model": self.model}


def blocks(size: int) -> list[int]:
    """Return the sizes of blocks of at most `BLOCK` rows."""
    return [min(BLOCK, size - at) for at in range(0, size, BLOCK)]


def standardized(advantage: Tensor) -> Tensor:
    """Return advantages of mean 0 and standard deviation 1; a single one as it is."""
    if len(advantage) < 2:
        return advantage
    spread, mean = torch.std_mean(advantage)
    return (advantage - mean) / (spread + 1e-8)
