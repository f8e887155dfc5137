"""A loss of every sample and one module: AdamW, warm-up and cosine, averaged weights."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from robopol.algos.algorithm import Algorithm, AlgorithmConfig, Remembers, Trained
from robopol.algos.learning import Learning
from robopol.algos.optimizer import AdamW
from robopol.networks.ema import EMA
from robopol.networks.precision import Runtime
from robopol.policies import Part


class RegressionConfig(AlgorithmConfig):
    """How a module is fitted; defaults as published for diffusion policies (Chi et al. 2023).

    Attributes:
        lr: Peak learning rate.
        betas: AdamW's decay rates.
        weight_decay: AdamW's weight decay, on matrices only.
        warmup: Updates over which the learning rate rises linearly to its peak; then it falls as a cosine to 0
            at the last update.
        clip_norm: Largest norm of the whole gradient; None leaves it.
        ema_max: Largest decay of the averaged weights.
    """

    lr: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = Field(1e-6, ge=0)
    warmup: int = Field(500, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    ema_max: float = Field(0.9999, ge=0, lt=1)


class Regression(Algorithm):
    """See `RegressionConfig`; a subclass says what the loss is."""

    def __init__(
        self, config: RegressionConfig, trained: nn.Module, group: str, total_updates: int, runtime: Runtime
    ) -> None:
        """Make the optimiser and the averaged copy.

        Args:
            config: How it is fitted.
            trained: What is fitted, on its device.
            group: Its group, under which its state is saved.
            total_updates: Length of the learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.
        """
        self.config, self.group, self._trained = config, group, trained
        self.total_updates, self.runtime = total_updates, runtime
        self.learning = Learning(trained)
        self.ema = EMA(trained, max_decay=config.ema_max)
        self.optimizer = AdamW(list(trained.parameters()), config.betas, config.weight_decay)

    @property
    def trained(self) -> dict[str, Trained]:
        """See `Algorithm.trained`."""
        return {self.group: self._trained}

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return {"ema": self.ema, "optimizer": self.optimizer}

    def update(self, batch: Mapping[str, Any], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`."""
        lr = self.config.lr * warmup_cosine(step, self.config.warmup, self.total_updates)
        with self.learning, self.runtime.autocast():
            loss = (self.losses(batch, step, generator) * batch["weight"]).mean()
        loss.backward()
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self._trained.parameters(), limit)
        self.optimizer.step(lr)
        self.ema.update(self._trained)
        return {"train/loss": loss.detach(), "train/grad_norm": norm, "train/lr": torch.tensor(lr)}

    @abstractmethod
    def losses(self, batch: Mapping[str, Any], step: int, generator: torch.Generator) -> Tensor:
        """Return the loss of every sample, (B,), what `update` averages by their weights; arguments as for it."""

    def parts(self) -> dict[str, Part]:
        """See `Algorithm.parts`; the averaged module."""
        return {self.group: cast(Part, self.ema.module)}


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Return the share of the peak learning rate at an update: linear rise, then half a cosine to 0.

    Args:
        step: Updates done.
        warmup: Length of the rise.
        total: Length of the whole schedule.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
