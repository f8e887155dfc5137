"""Some steps more often: sampling by the returns of whole episodes, or by who acted."""

import math
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.data.draws import uniform_numbers
from robopol.data.episodes import Episodes
from robopol.data.sampling import Sampling, SamplingConfig, Uniform, UniformConfig
from robopol.errors import ConfigError

if TYPE_CHECKING:
    from robopol.data.windows import Batch, Windows


class TrajectoryWeightedConfig(SamplingConfig):
    """Windows of better episodes more often, drawn with replacement (Hong et al. 2023, arXiv 2306.13085).

    A window of episode i is drawn with probability proportional to exp(x_i / temperature), where x_i in [0, 1] is the
    undiscounted return (``return``, their RW) or the return above what is expected at the start of the episode
    (``advantage``, their AW), scaled from its smallest to its largest value; shifting or scaling all returns changes
    nothing. Expected is a linear function of the first observation, fitted by least squares to the returns: with
    fewer episodes than entries of an observation it explains them all, and sampling is uniform.

    Attributes:
        by: What makes an episode good.
        temperature: Their alpha; 0.1 as published. The smaller, the greedier; the larger, the closer to uniform.
    """

    kind: Literal["trajectory_weighted"] = "trajectory_weighted"
    by: Literal["return", "advantage"] = "return"
    temperature: float = Field(0.1, gt=0)

    def build(self, windows: "Windows") -> "TrajectoryWeighted":
        """See `SamplingConfig.build`."""
        return TrajectoryWeighted(self, windows)


class TrajectoryWeighted(Sampling):
    """See `TrajectoryWeightedConfig`.

    Attributes:
        weights: (E,) float64, relative probability of a window of each episode that has windows; the others are NaN.
    """

    def __init__(self, config: TrajectoryWeightedConfig, windows: "Windows") -> None:
        """Weigh the episodes; see `TrajectoryWeightedConfig.build`."""
        super().__init__(windows)
        chosen = windows.episode.unique()
        returns = windows.episodes.returns()[chosen]
        score = returns
        if config.by == "advantage":
            score = returns - _expected_return(windows.episodes, chosen, returns)
        self.weights = torch.full((len(windows.episodes),), math.nan, dtype=torch.float64, device=returns.device)
        self.weights[chosen] = torch.exp((_unit(score, returns.abs().max()) - 1) / config.temperature)
        self._until = self.weights[windows.episode].cumsum(0).cpu()  # (W,)

    def batch(self, step: int, batch_size: int, seed: int) -> "Batch":
        """See `Sampling.batch`."""
        where = uniform_numbers((batch_size,), step, seed, purpose=1) * self._until[-1]
        drawn = torch.searchsorted(self._until, where, right=True).clamp_(max=len(self._until) - 1)
        return self.windows.gather(drawn)


class InterventionsConfig(SamplingConfig):
    """What a person did in a policy's place more often: so much of a batch, drawn with replacement, however rare it is.

    Half of every batch is how learners from interventions mix them with what the policy did itself (Luo et al. 2024,
    arXiv 2410.21845, whose demonstrations are the other half; Ball et al. 2023, arXiv 2302.02948).

    Attributes:
        share: Probability that a window is one in whose present step a person had taken over.
    """

    kind: Literal["interventions"] = "interventions"
    share: float = Field(0.5, ge=0, le=1)

    def held_out(self) -> SamplingConfig:
        """See `SamplingConfig.held_out`; all windows alike: a few episodes may hold none, or nothing else."""
        return UniformConfig()

    def build(self, windows: "Windows") -> "Interventions":
        """See `SamplingConfig.build`."""
        return Interventions(self.share, windows)


class Interventions(Sampling):
    """See `InterventionsConfig`.

    Attributes:
        taken: (W,), the windows in whose present step a person had taken over.
    """

    def __init__(self, share: float, windows: "Windows") -> None:
        """Find the windows; see `InterventionsConfig.build`."""
        super().__init__(windows)
        episodes = windows.episodes
        now = episodes.starts[windows.episode] + windows.start + windows.n_obs_steps - 1
        self.taken = episodes.intervention[now].cpu()
        if not self.taken.any() or self.taken.all():
            of = "every step is" if self.taken.any() else "no step is"
            raise ConfigError(f"{of} an intervention here, so there is nothing to mix: say sampling.kind=uniform")
        count = int(self.taken.sum())
        each = torch.where(self.taken, share / count, (1 - share) / (len(self.taken) - count))
        self._until = each.double().cumsum(0)  # (W,)

    def batch(self, step: int, batch_size: int, seed: int) -> "Batch":
        """See `Sampling.batch`."""
        where = uniform_numbers((batch_size,), step, seed, purpose=1) * self._until[-1]
        drawn = torch.searchsorted(self._until, where, right=True).clamp_(max=len(self._until) - 1)
        return self.windows.gather(drawn)


class TopKConfig(SamplingConfig):
    """Only the best episodes, otherwise as `uniform`.

    Attributes:
        share: Share of the episodes that is used, rounded up.
        by: ``return``, or ``success`` and among equals return. Of equal episodes the earlier ones are taken.
    """

    kind: Literal["top_k"] = "top_k"
    share: float = Field(0.1, gt=0, le=1)
    by: Literal["return", "success"] = "return"

    def build(self, windows: "Windows") -> Uniform:
        """See `SamplingConfig.build`."""
        episodes, chosen = windows.episodes, windows.episode.unique()
        returns = episodes.returns()[chosen]
        order = returns.argsort(descending=True, stable=True)
        if self.by == "success":
            order = order[episodes.success[chosen][order].int().argsort(descending=True, stable=True)]
        # 1e-9: a share of 0.1 of 30 episodes is 3 of them
        best = order[: math.ceil(self.share * len(chosen) - 1e-9)]
        return Uniform(windows.only(chosen[best].sort().values))


def _unit(values: Tensor, size: Tensor) -> Tensor:
    """Scale from 0 for the smallest to 1 for the largest value; all 1 if they differ by rounding of ``size`` only."""
    low, high = values.aminmax()
    if high - low <= 1e-9 * size:
        return torch.ones_like(values)
    return (values - low) / (high - low)


def _expected_return(episodes: Episodes, chosen: Tensor, returns: Tensor) -> Tensor:
    """Return the least-squares fit to the returns (K,), linear in the first low-dim observations."""
    low_dim = episodes.without_images().obs.values()
    first = [column[episodes.starts[chosen]].flatten(1) for column in low_dim]
    inputs = torch.cat([*first, torch.ones(len(chosen), 1, device=returns.device)], 1).double()
    # gelsd takes observations that never vary, or vary together
    solution = torch.linalg.lstsq(inputs.cpu(), returns.cpu()[:, None], driver="gelsd").solution
    return (inputs.cpu() @ solution)[:, 0].to(returns.device)
