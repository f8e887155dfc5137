"""Surrogates: what a policy-gradient method makes of likelihood ratios and advantages, one rule each.

Each is an objective to be raised, element by element; at ratio 1 its gradient is that of r A, the policy gradient.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.config import Config

FURTHEST = 10.0
"""Log-ratios are cut off here by surrogates that would overflow on both of their sides: they are level beyond."""


class UnclippedConfig(Config):
    """r A, for methods that bound the policy's step by other means.

    Attributes:
        clips: Whether there is a range in which ratios are to stay.
    """

    kind: Literal["unclipped"] = "unclipped"
    clips: ClassVar[bool] = False

    def build(self) -> "UnclippedConfig":
        """Return itself: a surrogate has no state."""
        return self

    def objective(self, log_ratio: Tensor, advantage: Tensor, share: Tensor | None) -> Tensor:
        """Return the objective of rows (B, R).

        Args:
            log_ratio: log pi_new / pi_old, (B, R).
            advantage: A, (B, R).
            share: Factor on the clip range in each row, (R,); None is 1.
        """
        return log_ratio.exp() * advantage

    def sloped(self, log_ratio: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective and its derivative in the log-ratio, one row a choice and of the full range, (B,) each.

        The derivative is autograd's, in fewer steps.
        """
        gained = log_ratio.exp() * advantage
        return gained, gained.clone()

    def outside(self, ratio: Tensor, share: Tensor | None) -> Tensor | None:
        """Return which ratios (B, R) lie outside the clip range, if there is one."""
        return None


class Ranged(Config):
    """A surrogate that knows how far ratios are to go.

    Attributes:
        clip: e, greatest distance of a ratio from 1.
    """

    clips: ClassVar[bool] = True
    clip: float = Field(0.2, gt=0)

    def outside(self, ratio: Tensor, share: Tensor | None) -> Tensor | None:
        """See `UnclippedConfig.outside`."""
        return (ratio - 1).abs() > _width(self.clip, share)


class ClipConfig(Ranged):
    """PPO (Schulman et al. 2017, arXiv 1707.06347, eq. 7): min(r A, clip(r, 1 - e, 1 + e) A).

    Attributes:
        clip: e.
        dual: c > 1 bounds the objective from below by c A where A < 0 (Ye et al. 2020); None does not.
    """

    kind: Literal["clip"] = "clip"
    dual: float | None = Field(None, gt=1)

    def build(self) -> "ClipConfig":
        """See `UnclippedConfig.build`."""
        return self

    def objective(self, log_ratio: Tensor, advantage: Tensor, share: Tensor | None) -> Tensor:
        """See `UnclippedConfig.objective`."""
        ratio, width = log_ratio.exp(), _width(self.clip, share)
        inside = ratio.clamp(1 - width, 1 + width)  # type: ignore[arg-type]
        least = torch.minimum(ratio * advantage, inside * advantage)
        if self.dual is None:
            return least
        return torch.where(advantage < 0, torch.maximum(least, self.dual * advantage), least)

    def sloped(self, log_ratio: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """See `UnclippedConfig.sloped`."""
        ratio = log_ratio.exp()
        gained = ratio * advantage
        inside = ratio.clamp(1 - self.clip, 1 + self.clip) * advantage
        found = torch.minimum(gained, inside)
        moving = gained <= inside
        if self.dual is not None:
            least = self.dual * advantage
            moving &= (advantage >= 0) | (found > least)
            found = torch.where(advantage < 0, torch.maximum(found, least), found)
        return found, gained * moving


class SimpleConfig(Ranged):
    """SPO (Xie et al. 2025, arXiv 2401.16025v8): r A - |A| (r - 1)^2 / (2 e), greatest at r = 1 + sign(A) e.

    Attributes:
        clip: e.
    """

    kind: Literal["simple"] = "simple"

    def build(self) -> "SimpleConfig":
        """See `UnclippedConfig.build`."""
        return self

    def objective(self, log_ratio: Tensor, advantage: Tensor, share: Tensor | None) -> Tensor:
        """See `UnclippedConfig.objective`."""
        ratio = log_ratio.clamp(-FURTHEST, FURTHEST).exp()
        return ratio * advantage - advantage.abs() * (ratio - 1) ** 2 / (2 * _width(self.clip, share))

    def sloped(self, log_ratio: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """See `UnclippedConfig.sloped`."""
        ratio = log_ratio.clamp(-FURTHEST, FURTHEST).exp()
        weight = advantage.abs() / self.clip
        found = ratio * advantage - 0.5 * weight * (ratio - 1) ** 2
        return found, ratio * (advantage - weight * (ratio - 1)) * (log_ratio.abs() <= FURTHEST)


class AsymmetricConfig(Ranged):
    """The clip where A >= 0, and SPO's where A < 0 (Yi et al. 2026, FPO++, arXiv 2602.02481).

    A choice that was good is let go once it is likelier by enough; one that was bad is pulled back to 1 - e, where the
    clip would leave it to fall on with the gradients of others.

    Attributes:
        clip: e.
    """

    kind: Literal["asymmetric"] = "asymmetric"

    def build(self) -> "AsymmetricConfig":
        """See `UnclippedConfig.build`."""
        return self

    @property
    def _halves(self) -> tuple[ClipConfig, SimpleConfig]:
        return ClipConfig(clip=self.clip), SimpleConfig(clip=self.clip)

    def objective(self, log_ratio: Tensor, advantage: Tensor, share: Tensor | None) -> Tensor:
        """See `UnclippedConfig.objective`."""
        good, bad = (half.objective(log_ratio, advantage, share) for half in self._halves)
        return torch.where(advantage >= 0, good, bad)

    def sloped(self, log_ratio: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """See `UnclippedConfig.sloped`."""
        good, bad = (half.sloped(log_ratio, advantage) for half in self._halves)
        return torch.where(advantage >= 0, good[0], bad[0]), torch.where(advantage >= 0, good[1], bad[1])


class DiscoveredConfig(Config):
    """The drift that was found by evolution and written down (Lu et al. 2022, arXiv 2210.05639).

    The objective is r A minus the drift:

        A >= 0: relu((r - 1) A - a tanh((r - 1) A / a)),   A < 0: relu(A log r - b tanh(A log r / b))

    a and b are in the unit of normalised advantages.

    Attributes:
        positive: a.
        negative: b.
    """

    kind: Literal["discovered"] = "discovered"
    clips: ClassVar[bool] = False
    positive: float = Field(2.0, gt=0)
    negative: float = Field(0.6, gt=0)

    def build(self) -> "DiscoveredConfig":
        """See `UnclippedConfig.build`."""
        return self

    def drift(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """Return the drift of rows (B, R): at least 0, and 0 with slope 0 at ratio 1."""
        up, down = (log_ratio.exp() - 1) * advantage, log_ratio * advantage
        rewarded = torch.relu(up - self.positive * torch.tanh(up / self.positive))
        punished = torch.relu(down - self.negative * torch.tanh(down / self.negative))
        return torch.where(advantage >= 0, rewarded, punished)

    def objective(self, log_ratio: Tensor, advantage: Tensor, share: Tensor | None) -> Tensor:
        """See `UnclippedConfig.objective`; the drift knows no range."""
        log_ratio = log_ratio.clamp(-FURTHEST, FURTHEST)
        return log_ratio.exp() * advantage - self.drift(log_ratio, advantage)

    def sloped(self, log_ratio: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """See `UnclippedConfig.sloped`."""
        with torch.enable_grad():
            still = log_ratio.detach().requires_grad_(True)
            found = self.objective(still, advantage, None)
            (slope,) = torch.autograd.grad(found.sum(), still)
        return found.detach(), slope

    def outside(self, ratio: Tensor, share: Tensor | None) -> Tensor | None:
        """See `UnclippedConfig.outside`."""
        return None


def _width(clip: float, share: Tensor | None) -> Tensor | float:
    return clip if share is None else clip * share
