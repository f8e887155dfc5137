"""A flow's own loss as likelihood (FPO: McAllister et al. 2025, arXiv 2507.21053)."""

from collections.abc import Mapping
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from robopol.algos.scoring.scoring import Reduction, Said, Scoring, ScoringConfig
from robopol.algos.scoring.walking import executed, generative, walk
from robopol.errors import ConfigError
from robopol.policies import Policy
from robopol.policies.generative import GenerativePolicy


class FlowMatchingConfig(ScoringConfig):
    """r = exp(L_old - L_new), L the loss of hiding the chosen chunk in noise and finding it again.

    The noises and times are drawn with the choice and stay. Any sampler can act, and no density is ever computed.

    Attributes:
        reduction: Of the entries of an executed chunk within a loss; the published clip range is for their ``mean``.
        pairs: N, noises and times for each choice.
        target: ``eps``: the error of the noise, which counts times near pure noise less; ``own``: what the network was
            trained to say.
        times: Drawn from the sampler's own ``grid``, or by the ``path``'s law for training.
        ratios: ``joint``: one ratio, of the mean loss over all pairs; ``each``: one for each pair.
        limit: With ``each``, log-ratios are cut off at -limit and limit.
    """

    kind: Literal["flow_matching"] = "flow_matching"
    reduction: Reduction = "mean"
    pairs: int = Field(8, ge=1)
    target: Literal["eps", "own"] = "eps"
    times: Literal["grid", "path"] = "grid"
    ratios: Literal["joint", "each"] = "joint"
    limit: float = Field(3.0, gt=0)

    @model_validator(mode="after")
    def _limits_each(self) -> Self:
        if self.ratios == "joint" and self.limit != type(self).model_fields["limit"].default:
            raise ValueError(f"limit={self.limit} cuts off the ratio of each pair: set ratios=each, or leave it out")
        return self

    def build(self, policy: Policy) -> "FlowMatching":
        """Return the scoring of a policy.

        Raises:
            ConfigError: If the policy walks no field of its own, or one whose loss bounds no likelihood.
        """
        found = generative(policy, "flow_matching")
        if not found.field.says_means:
            raise ConfigError(
                "algo.scoring=flow_matching reads the likelihood of actions from how well a network says the noise in "
                "them, and a consistency policy says where a walk ends: fine-tune the policy that it learned from"
            )
        return FlowMatching(self, found)


class FlowMatching(Scoring):
    """See `FlowMatchingConfig`."""

    def __init__(self, config: FlowMatchingConfig, policy: GenerativePolicy) -> None:
        """Score a policy; see `FlowMatchingConfig.build`."""
        super().__init__(config, policy)
        self.config, self._generative = config, policy

    def _draw(self, seen: Tensor, generator: Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        policy, pairs = self._generative, (len(seen), self.config.pairs)
        window = walk(policy, seen, generator, None)
        noise = torch.randn(*pairs, *window.shape[1:], generator=generator, device=seen.device)
        if self.config.times == "path":
            time = policy.field.path.draw_time(len(seen) * self.config.pairs, generator, seen.device).view(pairs)
        else:
            grid = policy.sampler.table(policy.field).schedule.times.to(seen)
            time = grid[torch.randint(len(grid), pairs, generator=generator, device=seen.device)]
        return executed(policy, window), {"window": window, "noise": noise, "time": time}

    def say(self, seen: Tensor, trace: Mapping[str, Tensor]) -> Said:
        """See `Scoring.say`: every pair's loss, (B, N), and what the network makes of it, (B, N, Tp, A)."""
        pairs, field = trace["time"].shape[1], self._generative.field
        window = trace["window"].repeat_interleave(pairs, 0)
        noise, time = trace["noise"].flatten(0, 1), trace["time"].flatten()
        cond = seen.repeat_interleave(pairs, 0)
        if self.config.target == "eps":
            hidden = field.hidden(window, noise, field.path.level(time))
            said, wanted = field(hidden, time, cond).eps, noise
        else:
            said, wanted = field.asked(window, time, noise, cond)
        errors = (said - wanted) ** 2
        return {
            "loss": self._reduced(errors).unflatten(0, (-1, pairs)),
            "said": said.unflatten(0, (-1, pairs)),
        }

    def log_ratio(self, new: Said, old: Said, trace: Mapping[str, Tensor]) -> Tensor:
        """See `Scoring.log_ratio`; (B, 1), or (B, N)."""
        fallen = old["loss"] - new["loss"]
        if self.config.ratios == "joint":
            return fallen.mean(1, keepdim=True)
        return fallen.clamp(-self.config.limit, self.config.limit)

    def kl(self, new: Said, old: Said) -> Tensor:
        """Return the squared distance of what was and is said, (B,): a proxy, not in nats, of a divergence."""
        return ((new["said"] - old["said"]) ** 2).sum((-2, -1)).mean(1)
