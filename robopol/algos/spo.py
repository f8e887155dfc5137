"""SPO (Xie et al. 2025, arXiv 2401.16025v8): PPO with a penalty that pulls back what has gone too far."""

from typing import Annotated, Any, Literal

from pydantic import Field

from robopol.algos.ppo import PPOConfig
from robopol.algos.surrogates import SimpleConfig
from robopol.config import OneOf


class SPOConfig(PPOConfig):
    """`PPOConfig` with the ``simple`` surrogate; where the authors' code differs from PPO's defaults, theirs.

    Attributes:
        surrogate: r A - |A| (r - 1)^2 / (2 e).
        value_clip: V moves at most so far, in the unit of scaled returns.
        scale_rewards: As there.
        anneal: As there.
        value_weight: As there, where the squares are halved once more.
    """

    kind: Literal["spo"] = "spo"  # type: ignore[assignment]
    surrogate: Annotated[Any, OneOf("surrogate")] = SimpleConfig()
    value_clip: float | None = Field(0.2, gt=0)
    scale_rewards: bool = True
    anneal: bool = True
    value_weight: float = Field(0.25, gt=0)
