"""The last steps of a denoising walk as decisions of their own (DPPO: Ren et al. 2024, arXiv 2409.00588)."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from robopol.algos.scoring.scoring import Reduction, Said, Scoring, ScoringConfig
from robopol.algos.scoring.walking import executed, generative, walk
from robopol.config import OneOf
from robopol.errors import ConfigError
from robopol.networks.fine_tuned import FineTunedConfig, FineTunedDenoiser
from robopol.policies import Policy
from robopol.policies.generative import GenerativePolicy
from robopol.policies.samplers import Hook, Step
from robopol.policies.samplers.first_order import FirstOrder


class DenoisingConfig(ScoringConfig):
    """A row for each of the last K' steps of the walk, x_k -> x_k-1 ~ N(mu_k(x_k, s), std_k^2).

    The steps before are taken by the policy as it was. The policy that is saved holds both networks and acts by its
    sampler alone, without the least spreads, which are for exploring.

    Attributes:
        reduction: The published ratio is of the mean log-density of the executed entries, not of their sum.
        steps: K'; None tunes all steps, and then there is one network only.
        min_sampling_std: Least standard deviation of a tuned step when exploring, in normalised units.
        min_scoring_std: Least standard deviation under which it is scored.
        noise_limit: Noise of tuned steps is cut off at so many standard deviations.
        log_prob_limits: Bounds of the log-density of an entry.
        discount: gamma_d: the advantage counts gamma_d^k in the step that is the k-th before the last.
        clip_base: Clip range of the noisiest tuned step, as a share of that of the last one.
        clip_rate: c > 0, how fast the range grows between the two, (e^cu - 1) / (e^c - 1) with u from 0 to 1.
        sampler: How the policy walks from now on; None is as it did.
    """

    kind: Literal["denoising"] = "denoising"
    reduction: Reduction = "mean"
    steps: int | None = Field(10, ge=1)
    min_sampling_std: float = Field(0.1, gt=0)
    min_scoring_std: float = Field(0.1, gt=0)
    noise_limit: float = Field(3.0, gt=0)
    log_prob_limits: tuple[float, float] = (-5.0, 2.0)
    discount: float = Field(0.99, gt=0, le=1)
    clip_base: float = Field(1.0, gt=0, le=1)
    clip_rate: float = Field(3.0, gt=0)
    sampler: Annotated[Any, OneOf("sampler")] | None = None

    @model_validator(mode="after")
    def _grows_from_something(self) -> Self:
        if self.clip_base == 1 and self.clip_rate != type(self).model_fields["clip_rate"].default:
            raise ValueError(
                f"clip_rate={self.clip_rate} says how the clip range grows from clip_base on, which is the whole range "
                "already: set clip_base below 1, or leave it out"
            )
        return self

    def build(self, policy: Policy) -> "Denoising":
        """Return the scoring of a policy.

        Raises:
            ConfigError: If the policy walks no field of its own, or not in steps whose spread is known.
        """
        base = generative(policy, "denoising")
        if self.sampler is not None:
            base.resample(self.sampler)
        return Denoising(self, fine_tuned(base, self.steps))


class Denoising(Scoring):
    """See `DenoisingConfig`.

    Attributes:
        first: Number of the first tuned step.
    """

    def __init__(self, config: DenoisingConfig, policy: GenerativePolicy) -> None:
        """Score a policy that `fine_tuned` returned; see `DenoisingConfig.build`."""
        super().__init__(config, policy)
        self.config, self._generative, self._sampler = config, policy, _steps_of(policy)
        spreads = [row.std for row in self._sampler.table(policy.field).rows]
        count = len(spreads) if config.steps is None else config.steps
        self.first = len(spreads) - count
        tuned = torch.tensor(spreads[self.first :], device=policy.device)
        self.sampling_std = tuned.clamp(min=config.min_sampling_std)
        self.scoring_std = tuned.clamp(min=config.min_scoring_std)
        self._spreads = self.sampling_std.tolist()
        net = policy.field.net
        self._tuned = net.tuned if isinstance(net, FineTunedDenoiser) else net
        policy.requires_grad_(False)
        self._tuned.requires_grad_(True)

        left = torch.arange(count - 1, -1, -1, device=policy.device)
        self._weights = torch.tensor(config.discount, device=policy.device) ** left
        share = 1 - left / max(1, count - 1)
        grown = torch.expm1(config.clip_rate * share) / math.expm1(config.clip_rate)
        self._clips = config.clip_base + (1 - config.clip_base) * grown

    @property
    def row_weights(self) -> Tensor:
        """See `Scoring.row_weights`."""
        return self._weights

    @property
    def row_clips(self) -> Tensor:
        """See `Scoring.row_clips`."""
        return self._clips

    def _draw(self, seen: Tensor, generator: Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        chain: list[Tensor] = []

        def hook(draw: Any) -> Hook:
            def explore(step: Step) -> Tensor | None:
                if step.number < self.first:
                    return None
                if not chain:
                    chain.append(step.x)
                noise = (draw() if step.noise is None else step.noise).clamp(
                    -self.config.noise_limit, self.config.noise_limit
                )
                chain.append(torch.add(step.mean, noise, alpha=self._spreads[step.number - self.first]))
                return chain[-1]

            return explore

        window = walk(self._generative, seen, generator, hook)
        return executed(self._generative, window), {"chain": torch.stack(chain, 1)}

    def say(self, seen: Tensor, trace: Mapping[str, Tensor]) -> Said:
        """See `Scoring.say`: the means of all tuned steps from the stored states, (B, K', Tp, A)."""
        means: list[Tensor] = []

        def look(step: Step) -> Tensor:
            means.append(step.mean)
            return step.x

        chain = trace["chain"]
        step = self._sampler.steps(self._generative.field, seen, lambda: chain[:, 0], self.first, look)
        for k in range(chain.shape[1] - 1):
            step(chain[:, k], self.first + k)
        return {"mean": torch.stack(means, 1)}

    def log_prob(self, said: Said, trace: Mapping[str, Tensor]) -> Tensor:
        """Return the log-density of every entry of every tuned step, (B, K', Tp, A), within its bounds."""
        std = self.scoring_std[:, None, None]
        z = (trace["chain"][:, 1:] - said["mean"]) / std
        return (-0.5 * z**2 - std.log() - 0.5 * math.log(2 * math.pi)).clamp(*self.config.log_prob_limits)

    def log_ratio(self, new: Said, old: Said, trace: Mapping[str, Tensor]) -> Tensor:
        """See `Scoring.log_ratio`; (B, K')."""
        return self._reduced(self.log_prob(new, trace) - self.log_prob(old, trace))

    def kl(self, new: Said, old: Said) -> Tensor:
        """See `Scoring.kl`: of the walks, from their stored states; at least that of the actions."""
        moved = (new["mean"] - old["mean"]) / self.scoring_std[:, None, None]
        return 0.5 * (moved**2).sum((-3, -2, -1))


def fine_tuned(policy: GenerativePolicy, steps: int | None) -> GenerativePolicy:
    """Return a policy whose last steps are taken by a network of their own, which says what the policy's says.

    Args:
        policy: The policy; one that is tuned so already, for the same steps, is returned itself.
        steps: K'; None leaves the policy as it is: all its steps are tuned.

    Returns:
        The policy, its normalisers those of the other.

    Raises:
        ConfigError: If there are fewer steps, or other ones are tuned already.
    """
    told = _steps_of(policy).table(policy.field).schedule.told.double().tolist()
    if steps is None:
        return policy
    if not 0 <= steps <= len(told):
        raise ConfigError(
            f"{steps} last steps cannot be tuned: the sampler takes {len(told)}; "
            f"set algo.scoring.steps={len(told)} or less"
        )
    path = policy.field.path
    end = path.network_time(torch.tensor(path.ends[1], dtype=torch.float64)).item()
    first = len(told) - steps
    if steps == 0:
        times = (1.0, 0.0)
    else:
        edge = (told[first - 1] + told[first]) / 2 if first else told[0]
        times = (min(edge, end, *told[first:]), max(edge, end, *told[first:]))
    net = policy.config.net
    if isinstance(net, FineTunedConfig):
        if net.times != times:
            raise ConfigError(
                f"the policy was fine-tuned for network times {net.times}, and {steps} last steps are {times}: tune "
                "the same steps, or begin from the base policy"
            )
        return policy
    config = policy.config.model_copy(update={"net": FineTunedConfig(net=net, times=times)})
    tuned: GenerativePolicy = config.build(policy.spec).to(policy.device)
    state = {name: value for name, value in policy.state_dict().items() if not name.startswith("field.net.")}
    for name, value in policy.field.net.state_dict().items():
        state |= {f"field.net.base.{name}": value, f"field.net.tuned.{name}": value}
    tuned.load_state_dict(state)
    return tuned


def _steps_of(policy: GenerativePolicy) -> FirstOrder:
    if not isinstance(policy.sampler, FirstOrder):
        raise ConfigError(
            f"the {policy.config.sampler.tree()['kind']} sampler does not say what its steps are drawn from: set "
            "algo.scoring.sampler to ddpm, ddim, ancestral or euler"
        )
    return policy.sampler
