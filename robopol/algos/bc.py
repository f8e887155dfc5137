"""Behaviour cloning: the policy's own loss on demonstrations, AdamW, warm-up and cosine, averaged weights."""

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from robopol.algos.algorithm import Algorithm
from robopol.algos.optimizer import AdamW
from robopol.config import Config
from robopol.networks.ema import EMA
from robopol.networks.precision import Runtime
from robopol.policies import Policy


class BCConfig(Config):
    """Behaviour cloning; defaults as published for diffusion policies (Chi et al. 2023).

    Attributes:
        lr: Peak learning rate.
        betas: AdamW's decay rates.
        weight_decay: AdamW's weight decay, on matrices only.
        warmup: Updates over which the learning rate rises linearly to its peak; then it falls as a cosine to 0
            at the last update.
        clip_norm: Largest norm of the whole gradient; None leaves it.
        ema_max: Largest decay of the averaged weights.
    """

    kind: Literal["bc"] = "bc"
    lr: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = Field(1e-6, ge=0)
    warmup: int = Field(500, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    ema_max: float = Field(0.9999, ge=0, lt=1)

    def build(self, policy: Policy, total_updates: int, runtime: Runtime) -> "BC":
        """Return the algorithm.

        Args:
            policy: The policy to train, on its device.
            total_updates: Length of the learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.
        """
        return BC(self, policy, total_updates, runtime)


class BC(Algorithm):
    """See `BCConfig`."""

    def __init__(self, config: BCConfig, policy: Policy, total_updates: int, runtime: Runtime) -> None:
        """Make the optimiser and the averaged copy; see `BCConfig.build`."""
        self.config, self.policy = config, policy
        self.total_updates, self.runtime = total_updates, runtime
        self.ema = EMA(policy, max_decay=config.ema_max)
        self.optimizer = AdamW(list(policy.parameters()), config.betas, config.weight_decay)

    def update(self, batch: Mapping[str, Any], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`."""
        lr = self.config.lr * warmup_cosine(step, self.config.warmup, self.total_updates)
        with self.runtime.autocast():
            loss = (self.losses(batch, generator) * batch["weight"]).mean()
        loss.backward()
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), limit)
        self.optimizer.step(lr)
        self.ema.update(self.policy)
        return {"train/loss": loss.detach(), "train/grad_norm": norm, "train/lr": torch.tensor(lr)}

    def losses(self, batch: Mapping[str, Any], generator: torch.Generator) -> Tensor:
        """Return the loss of every sample, (B,); what `update` averages by their weights."""
        return self.policy.loss(batch, generator)

    def deployed(self) -> Policy:
        """Return the averaged policy."""
        return cast(Policy, self.ema.module)

    def state(self) -> dict[str, Tensor]:
        """See `Algorithm.state`."""
        raw = {f"policy.{name}": value for name, value in self.policy.state_dict().items()}
        averaged = {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        memory = {f"optimizer.{name}": value for name, value in self.optimizer.state().items()}
        return raw | averaged | memory

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Algorithm.load_state`."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in state.items():
            owner, _, rest = name.partition(".")
            parts.setdefault(owner, {})[rest] = value
        self.policy.load_state_dict(parts["policy"])
        self.ema.load_state_dict(parts["ema"])
        self.optimizer.load_state(parts["optimizer"])


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
