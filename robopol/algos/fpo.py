"""FPO (McAllister et al. 2025, arXiv 2507.21053): PPO whose likelihood ratio is a flow's own loss, then and now."""

from typing import Annotated, Any, Literal

from pydantic import Field

from robopol.algos.ppo import PPOConfig
from robopol.algos.scoring.flow_matching import FlowMatchingConfig
from robopol.algos.surrogates import ClipConfig
from robopol.config import OneOf


class FPOConfig(PPOConfig):
    """`PPOConfig` over a flow's loss; where the authors' code for MuJoCo Playground differs, as there.

    Advantages are computed once for a rollout, as usual, where theirs are computed anew for every minibatch.

    Attributes:
        scoring: The flow's loss.
        surrogate: With the narrow range that a mean over entries asks for: wider ones are published as worse.
        epochs: As there.
        value_weight: As there.
        clip_norm: As there: the gradient is not clipped.
    """

    kind: Literal["fpo"] = "fpo"  # type: ignore[assignment]
    scoring: Annotated[Any, OneOf("scoring")] = FlowMatchingConfig()
    surrogate: Annotated[Any, OneOf("surrogate")] = ClipConfig(clip=0.05)
    epochs: int = Field(16, ge=1)
    value_weight: float = Field(0.25, gt=0)
    clip_norm: float | None = Field(None, gt=0)
