"""DPPO (Ren et al. 2024, arXiv 2409.00588): PPO on the last denoising steps of a diffusion policy."""

from typing import Annotated, Any, Literal

from pydantic import Field

from robopol.algos.ppo import PPOConfig
from robopol.algos.scoring.denoising import DenoisingConfig
from robopol.algos.surrogates import ClipConfig
from robopol.config import OneOf


class DPPOConfig(PPOConfig):
    """`PPOConfig` over a walk's last steps; where the authors' code for state observations differs, as there.

    The discount is the model's, of each environment step; theirs is of each chunk: 0.99 for chunks of 4 actions is
    0.9975 here.

    Attributes:
        scoring: The denoising steps.
        surrogate: With the narrow range that a mean log-density asks for.
        lr: Of the tuned steps.
        critic_lr: Of the value network.
        epochs: As there.
        scale_rewards: As there.
        clip_norm: As there: the gradient is not clipped.
        target_kl: As there; but here passes end before the step at 1.5 of it, theirs after the one that went beyond it.
        warmup: First updates that move V alone.
    """

    kind: Literal["dppo"] = "dppo"  # type: ignore[assignment]
    scoring: Annotated[Any, OneOf("scoring")] = DenoisingConfig()
    surrogate: Annotated[Any, OneOf("surrogate")] = ClipConfig(clip=0.01)
    lr: float = Field(1e-4, gt=0)
    critic_lr: float = Field(1e-3, gt=0)
    epochs: int = Field(5, ge=1)
    scale_rewards: bool = True
    clip_norm: float | None = Field(None, gt=0)
    target_kl: float | None = Field(1.0, gt=0)
    warmup: int = Field(1, ge=0)
