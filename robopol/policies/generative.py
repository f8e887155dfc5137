"""A generative policy: noise -> field -> sampler."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from pydantic import model_validator
from torch import Generator, Tensor

from robopol.config import OneOf, parse
from robopol.data.reach import ROUNDING
from robopol.errors import ConfigError
from robopol.policies.field import Field
from robopol.policies.guidance import GoalEncoder, GuidanceConfig, GuidedField
from robopol.policies.part import PolicySpec
from robopol.policies.policy import Generators, PolicyConfig, Previous, check_noise, standard_normal
from robopol.policies.walking import WalkingPolicy

if TYPE_CHECKING:
    from robopol.data import Episodes

Prediction = Literal["eps", "x0", "v", "velocity", "score", "edm", "consistency"]


class GenerativeConfig(PolicyConfig):
    """What all generative policies are told.

    Attributes:
        path: How noise and data are mixed.
        prediction: What the network predicts; see `robopol.policies.prediction`.
        net: The denoiser network.
        sampler: How a chunk is walked from noise.
        guidance: How the policy is guided to a goal; None treats a goal as any other observation.
    """

    path: Annotated[Any, OneOf("path")]
    prediction: Prediction
    net: Annotated[Any, OneOf("net")]
    sampler: Annotated[Any, OneOf("sampler")]
    guidance: GuidanceConfig | None = None

    @model_validator(mode="after")
    def _clips_what_is_scaled(self) -> Self:
        if self.action_normalization == "zscore" and self.sampler.clip != "never":
            raise ValueError(
                "actions scaled to mean 0 and standard deviation 1 leave [-1, 1], where the sampler clips them: set "
                "sampler.clip=never, or action_normalization=minmax"
            )
        return self

    def build(self, spec: PolicySpec) -> "GenerativePolicy":
        """Return the policy, its weights untrained.

        Args:
            spec: The contract with the world.

        Raises:
            ConfigError: If the parts do not fit each other.
        """
        return GenerativePolicy(self, spec)


class GenerativePolicy(WalkingPolicy):
    """Samples an action chunk by walking a field from noise to data.

    Diffusion and flow policies differ only in the parts they are assembled from (Chi et al. 2023; Black et al.
    2024).
    """

    config: GenerativeConfig

    def __init__(self, config: GenerativeConfig, spec: PolicySpec) -> None:
        """Assemble the parts; see `GenerativeConfig.build`."""
        super().__init__(config, spec)
        if config.guidance is not None:
            guided = config.guidance.build(config.encoder, spec.obs_shapes, config.obs_normalization)
            self.observation = guided or self.observation
        net = config.net.build(spec.action_dim, spec.horizon, self.observation.dim, spec.n_obs_steps)
        self.field = Field(net, config.path.build(), config.prediction)
        self.resample(config.sampler)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """See `Policy.noise_shape`."""
        return (self.spec.horizon, self.spec.action_dim)

    @property
    def walked(self) -> Field:
        """See `WalkingPolicy.walked`; it is pulled towards the goal."""
        if self.config.guidance is None or not isinstance(self.observation, GoalEncoder):
            return self.field
        return GuidedField(self.field, self.observation.without, self.config.guidance.weight)

    def guide(self, weight: float) -> None:
        """Let the goal pull otherwise from now on; the networks stay.

        Args:
            weight: See `GuidanceConfig`.

        Raises:
            ConfigError: If the policy has no goal that can be left out, or cannot be pulled so.
        """
        if self.config.guidance is None or not isinstance(self.observation, GoalEncoder):
            raise ConfigError("the policy has no goal that can be left out: train one with policy.guidance")
        guidance = self.config.guidance.tree() | {"weight": weight}
        self.config = parse(type(self.config), self.config.tree() | {"guidance": guidance})

    @property
    def bounded(self) -> bool:
        """See `Policy.bounded`; by what the sampler clips."""
        return bool(self.config.sampler.clip != "never")

    def fit_normalizers(self, episodes: "Episodes") -> None:
        """See `Policy.fit_normalizers`.

        Raises:
            ConfigError: If unscaled actions lie where the sampler clips them.
        """
        reach = episodes.action.abs().max().item()
        if self.bounded and self.config.action_normalization == "identity" and reach > 1 + ROUNDING:
            raise ConfigError(
                f"actions that are not scaled reach {reach:.3g}, and the sampler clips plans to [-1, 1]: set "
                "policy.action_normalization=minmax, or policy.sampler.clip=never"
            )
        super().fit_normalizers(episodes)

    @torch.no_grad()
    def plan_from(
        self, obs: Mapping[str, Tensor], noise: Tensor, previous: Sequence[Previous | None] | None = None
    ) -> Tensor:
        """See `Policy.plan_from`; for a walk that draws nothing on its way.

        Raises:
            ConfigError: If it draws more than what it begins from.
            ShapeError: As there.
        """

        def draw() -> Tensor:
            raise ConfigError(
                f"the {self.sampler.config.kind} sampler draws more noise on its way, so that what it begins from does "
                "not decide where it ends: choose ddim or euler by policy.sampler, or where it is fine-tuned by "
                "algo.sampler, e.g. 'algo.sampler={kind: ddim, steps: 10}'"
            )

        cond = self.observation(obs, self.spec.n_obs_steps)
        check_noise(noise, len(cond), self.noise_shape)
        rows, n = noise.shape[:2]
        chunks = self.sampler.sample(self.walked, noise.flatten(0, 1), cond.repeat_interleave(n, 0), draw)
        return self.action_normalizer.unnormalize(chunks.unflatten(0, (rows, n)))

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        shape = (len(cond), n, self.spec.horizon, self.spec.action_dim)

        def draw() -> Tensor:
            return standard_normal(shape, generator, cond.device).flatten(0, 1)

        chunks = self.sampler.sample(self.walked, draw(), cond.repeat_interleave(n, 0), draw)
        return chunks.unflatten(0, shape[:2])

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        loss = self.field.loss(action, cond, generator).mean(-1)
        return (loss * mask).sum(-1) / mask.sum(-1)
