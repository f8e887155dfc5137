"""Actor-critic methods that choose the noise of a frozen policy instead of actions (Wagenmaker et al. 2025)."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Explored, Remembers
from robopol.algos.sac import SAC, SACConfig
from robopol.algos.sharing import sharing
from robopol.algos.soft import SAMPLING
from robopol.config import OneOf, parse
from robopol.data.normalizer import Normalizer
from robopol.data.windows import newest
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.q import QConfig, QModel
from robopol.networks.precision import Runtime
from robopol.policies import Part, Policy, PolicySpec
from robopol.policies.policy import standard_normal
from robopol.policies.squashed_gaussian import Sample, SquashedGaussianConfig
from robopol.policies.walking import WalkingPolicy
from robopol.steering.learned_noise import LearnedNoise
from robopol.steering.steered import SteeredPolicy


class LatentSACConfig(SACConfig):
    """What all are told that choose noise.

    The base policy's plan f(s, w) is a function of its noise w alone, and is never differentiated. An actor pi chooses
    w within [-magnitude, magnitude]; the first h actions are executed. Before it has learned anything, in the warm-up,
    the base policy acts as it is, with its own noise N(0, I).

    Chunks and the scale of observations are the base policy's, whatever ``model`` says of them. The critics look at its
    histories, the actor at the newest observation.

    Densities are of the noise itself: with the actor's log pi' in the units of its box, log pi(w|s) is log pi' less
    D ln magnitude, D the entries of the noise. So an entropy means the same whatever the magnitude is. The authors'
    code leaves that out, which is the same for a magnitude of 1.

    Attributes:
        paid: Whether chance in what comes next is worth something, as released. It is in every decision of a long
            noise, so that with rewards for success alone whoever takes longer would earn more.
        target_entropy: H, what the entropy of the noise is brought to: that of a box of edges of length exp(H / D), 1
            for 0.
        magnitude: Greatest size of an entry of the noise.
        actor: What chooses the noise, when it is evaluated, too, by samples.
        sampler: How the base policy walks from now on, drawing nothing on its way; None is as it did.
    """

    paid: bool = False
    target_entropy: float | None = 0.0
    magnitude: float = Field(1.5, gt=0)
    actor: SquashedGaussianConfig = SAMPLING
    sampler: Annotated[Any, OneOf("sampler")] | None = None

    def critics(self, model: Model) -> QConfig:
        """Return what the critics are like, which are made anew.

        Raises:
            ConfigError: If the model is no Q.
        """
        kind = self.tree()["kind"]
        if not isinstance(model, QModel):
            raise ConfigError(f"algo={kind} trains a q, not a {model.config.tree()['kind']} model: set model=q")
        return model.config


class LatentSAC(SAC):
    """See `LatentSACConfig`.

    Attributes:
        base: The frozen policy.
        policy: The actor that chooses its noise.
    """

    config: LatentSACConfig

    def __init__(
        self,
        config: LatentSACConfig,
        base: Policy,
        critics: QConfig,
        judged: PolicySpec,
        total_updates: int,
        runtime: Runtime,
    ) -> None:
        """Make actor and critics.

        Args:
            config: How they are trained.
            base: The base policy, on its device; only how it walks is changed.
            critics: What critics are like.
            judged: The contract of what they judge.
            total_updates: When the expectile has come down; the rates stay.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If noise alone does not decide what the policy does, or its observations cannot be shared.
        """
        if config.sampler is not None:
            if not isinstance(base, WalkingPolicy):
                raise ConfigError(
                    f"algo.sampler says how a policy walks, and a {base.config.tree()['kind']} policy walks no field: "
                    "leave it out"
                )
            base.resample(config.sampler)
        self.base = base.eval().requires_grad_(False)
        noise = noise_spec(base, config)
        actor = sharing(config.actor, base, noise.model_copy(update={"n_obs_steps": 1, "horizon": 1}))
        super().__init__(config, actor, sharing(critics, base, judged), total_updates, runtime)
        self._log_scale = noise.action_dim * math.log(config.magnitude)
        self._steered = SteeredPolicy(self.base, [LearnedNoise(actor, base)]).eval()
        if all(part.fitted for part in base.modules() if isinstance(part, Normalizer)):  # else a run is resumed
            rows = {key: torch.zeros(1, noise.n_obs_steps, *shape) for key, shape in base.spec.obs_shapes.items()}
            # what cannot be steered so is refused now
            self.decode({key: row.to(base.device) for key, row in rows.items()}, self.normal(1))

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return super().beside | {"base": self.base}

    def drawn(self, obs: Mapping[str, Tensor], generator: Generator) -> Sample:
        """See `SAC.drawn`; in states of the base policy's histories, with the density of the noise itself."""
        drawn = self.policy.sample(newest(obs, 1), generator)
        return drawn._replace(log_prob=drawn.log_prob - self._log_scale)

    @torch.no_grad()
    def decode(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Return the actions that are executed of the plans that noises (B, 1, D) lead to, (B, h, A)."""
        seen = newest(obs, self.base.spec.n_obs_steps)
        plan = self.base.plan_from(seen, noise.unflatten(-1, self.base.noise_shape or ()))[:, 0]
        first = self.base.spec.n_obs_steps - 1
        low, high = (plan.new_tensor(side) for side in (self.base.spec.action_low, self.base.spec.action_high))
        return plan[:, first : first + self.base.spec.n_action_steps].clamp(low, high)

    @torch.no_grad()
    def explore(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.Explores`; samples of the actor, decoded, with the noise as trace."""
        with self.runtime.autocast():
            return self._tries(obs, self.drawn(obs, generator).action)

    def warm_up(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.WarmsUp`; the base policy."""
        return self._tries(obs, self.normal(len(next(iter(obs.values()))), generator))

    def normal(self, rows: int, generator: Generator | None = None) -> Tensor:
        """Draw the base policy's own noise, (B, 1, D)."""
        return standard_normal((rows, 1, math.prod(self.base.noise_shape or ())), generator, self.base.device)

    def tried(self, obs: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """See `OffPolicy.tried`."""
        return self.explore(obs, generator).action

    def deployed(self) -> Policy:
        """See `Algorithm.deployed`; the base policy, steered by the actor as it stands."""
        return self._steered

    def parts(self) -> dict[str, Part]:
        """See `Algorithm.parts`; the steered policy, and the target of Q."""
        return {"policy": self._steered, "model": self.target}

    def _tries(self, obs: Mapping[str, Tensor], noise: Tensor) -> Explored:
        return Explored(self.decode(obs, noise).float(), {"noise": noise[:, 0].float()})


def noise_spec(base: Policy, config: LatentSACConfig) -> PolicySpec:
    """Return the contract of what chooses the noise of a policy: every entry of it is one of an action.

    Raises:
        ConfigError: If the policy begins from no noise, or does not look at it.
    """
    if base.noise_shape is None:
        raise ConfigError(
            f"algo={config.tree()['kind']} chooses the noise that a policy begins from, and a "
            f"{base.config.tree()['kind']} policy begins from none: fine-tune a diffusion or a flow policy"
        )
    if getattr(base.config, "deterministic", False):
        raise ConfigError(
            f"algo={config.tree()['kind']} chooses the noise that a policy begins from, and this one acts with its "
            "mean whatever the noise is: save it with deterministic=false"
        )
    size = math.prod(base.noise_shape)
    told = {
        "action_names": [f"noise {i}" for i in range(size)],
        "action_low": [-config.magnitude] * size,
        "action_high": [config.magnitude] * size,
        "action_space": "noise",
        "horizon": base.spec.n_obs_steps,
        "n_action_steps": 1,
    }
    return parse(PolicySpec, base.spec.tree() | told)
