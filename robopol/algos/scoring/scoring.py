"""What every scoring is: a choice that leaves a trace, and how much likelier the policy makes it now than then."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from robopol.algos.algorithm import Explored
from robopol.config import Config
from robopol.data.windows import newest
from robopol.policies import Policy

Said = Mapping[str, Tensor]
"""What a policy says of choices in a set of states, one row each; only the scoring that it is from can read it."""

Reduction = Literal["sum", "mean"]


class ScoringConfig(Config):
    """What all scorings are told.

    Attributes:
        reduction: Of the log-ratios of the entries of an executed chunk: their ``sum`` is that of the joint density;
            their ``mean`` is its power 1 / (h A), so that what a clip range means depends on neither.
    """

    reduction: Reduction = "sum"


class Scoring(ABC):
    """A policy, as far as policy-gradient methods look at it.

    A choice has R rows, each with a likelihood ratio of its own: a Gaussian has one, a denoising chain one for each
    step. What the policy said when it chose (``old``) is what it says before the first update: then every ratio is 1.

    Attributes:
        policy: What is trained, and acts.
        reduction: See `ScoringConfig`.
    """

    has_entropy: ClassVar[bool] = False

    def __init__(self, config: ScoringConfig, policy: Policy) -> None:
        """Take over a policy."""
        self.policy, self.reduction = policy, config.reduction
        spec = policy.spec
        self._now = spec.n_obs_steps - 1
        self._after = self._now + spec.n_action_steps

    @property
    def entries(self) -> int:
        """Numbers that an executed chunk has, h A."""
        return (self._after - self._now) * self.policy.spec.action_dim

    @property
    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

    @property
    def row_weights(self) -> Tensor | None:
        """Factor on the advantage in each row, (R,); None is 1."""
        return None

    @property
    def row_clips(self) -> Tensor | None:
        """Share of the clip range in each row, (R,); None is 1."""
        return None

    @property
    def encodes_once(self) -> bool:
        """Whether what is seen does not depend on what is trained."""
        trained = {id(parameter) for parameter in self.parameters}
        return not any(id(parameter) in trained for parameter in self.policy.observation.parameters())

    def see(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Encode histories key -> (B, To or more, ...); (B, To, D)."""
        steps = self.policy.spec.n_obs_steps
        seen: Tensor = self.policy.observation(newest(obs, steps), steps)
        return seen

    @torch.no_grad()
    def explore(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """Choose chunks and leave a trace; see `robopol.algos.algorithm.Explores`."""
        window, trace = self._draw(self.see(obs), generator)
        return Explored(self._cut(window), trace)

    @abstractmethod
    def _draw(self, seen: Tensor, generator: Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Draw windows (B, Tp, A) in environment units, and their trace."""

    @abstractmethod
    def say(self, seen: Tensor, trace: Mapping[str, Tensor]) -> Said:
        """Say what the policy, as it stands, makes of the choices in a trace; differentiable in what is trained.

        Args:
            seen: (B, To, D), from `see`.
            trace: Name -> (B, ...), from `explore`.
        """

    @abstractmethod
    def log_ratio(self, new: Said, old: Said, trace: Mapping[str, Tensor]) -> Tensor:
        """Return log pi_new / pi_old of every row of the choices, (B, R)."""

    @abstractmethod
    def kl(self, new: Said, old: Said) -> Tensor:
        """Return KL(old || new) in each state, (B,), nats; summed over entries and rows, whatever the reduction."""

    def entropy(self, said: Said) -> Tensor:
        """Return the entropy in each state, (B,), nats, if the policy has one (`has_entropy`)."""
        raise NotImplementedError

    def _cut(self, windows: Tensor) -> Tensor:
        """Return what is executed of windows (..., Tp, A): (..., h, A)."""
        if windows.shape[-2] == self._after - self._now:
            return windows
        return windows[..., self._now : self._after, :]

    def _reduced(self, entries: Tensor) -> Tensor:
        """Reduce entries (..., Tp, A) of windows to (...), over what is executed."""
        cut = self._cut(entries)
        return cut.sum((-2, -1)) if self.reduction == "sum" else cut.mean((-2, -1))
