"""A generative policy: noise -> field -> sampler."""

from typing import Annotated, Any

from torch import Generator, Tensor

from robopol.config import OneOf
from robopol.policies.field import Field
from robopol.policies.path import Path
from robopol.policies.policy import Generators, Policy, PolicyConfig, PolicySpec, standard_normal


class GenerativeConfig(PolicyConfig):
    """What all generative policies are told.

    Attributes:
        net: The denoiser network.
        sampler: How a chunk is walked from noise.
    """

    net: Annotated[Any, OneOf("net")]
    sampler: Annotated[Any, OneOf("sampler")]


class GenerativePolicy(Policy):
    """Samples an action chunk by walking a field from noise to data.

    Diffusion and flow policies differ only in the parts they are assembled from (Chi et al. 2023; Black et al.
    2024).
    """

    def __init__(
        self, config: GenerativeConfig, spec: PolicySpec, path: Path, prediction: str, time_scale: float = 1.0
    ) -> None:
        """Assemble the parts.

        Args:
            config: The policy's own config.
            spec: The contract with the world.
            path: The path that the field is trained on.
            prediction: What the network predicts; a name of `robopol.policies.prediction.PREDICTIONS`.
            time_scale: The network is given ``time_scale`` times the path's time.

        Raises:
            ConfigError: If the parts do not fit each other.
        """
        super().__init__(config, spec)
        net = config.net.build(spec.action_dim, spec.horizon, self.observation.dim, spec.n_obs_steps)
        self.field = Field(net, path, prediction, time_scale)
        self.sampler = config.sampler.build()
        self.sampler.table(path)  # an impossible walk is refused now, not when the policy first acts

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        shape = (len(cond), n, self.spec.horizon, self.spec.action_dim)

        def draw() -> Tensor:
            return standard_normal(shape, generator, cond.device).flatten(0, 1)

        chunks = self.sampler.sample(self.field, draw(), cond.repeat_interleave(n, 0), draw)
        return chunks.unflatten(0, shape[:2])

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        loss = self.field.loss(action, cond, generator).mean(-1)
        return (loss * mask).sum(-1) / mask.sum(-1)
