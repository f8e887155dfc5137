"""Mixture-of-Gaussians policy over action chunks, the density baseline of robomimic (Mandlekar et al. 2021)."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from robopol.data import Episodes, Windows
from robopol.networks.mlp import MLP
from robopol.policies.part import PolicySpec
from robopol.policies.policy import Generators, Policy, PolicyConfig, standard_normal


class MixtureConfig(PolicyConfig):
    """Diagonal Gaussians over the whole normalised chunk.

    Attributes:
        hidden: Widths of the trunk.
        min_std: Smallest standard deviation, in normalised action units. The density of a whole chunk is a product over
            all its entries; with a much smaller floor it becomes so sharp that one mode takes all samples for good.
        deterministic: Act with the mean of a drawn mode instead of a sample around it (robomimic's low-noise
            evaluation).
    """

    hidden: tuple[int, ...] = (512, 512, 512)
    min_std: float = Field(0.1, gt=0)
    deterministic: bool = True


class GMMConfig(MixtureConfig):
    """A mixture of them.

    Attributes:
        modes: Number of Gaussians, K.
    """

    kind: Literal["gmm"] = "gmm"
    modes: int = Field(5, ge=1)

    def build(self, spec: PolicySpec) -> "MixturePolicy":
        """Return the policy, its weights untrained."""
        return MixturePolicy(self, spec, self.modes)


CLUSTERED = 2000
"""Most chunks that are looked at to find where the modes begin."""


class MixturePolicy(Policy):
    """One network gives the weights, means and standard deviations of K Gaussians over the chunk.

    The mode is chosen once for the whole chunk, so a chunk never mixes two ways of doing the task.
    """

    config: MixtureConfig

    def __init__(self, config: MixtureConfig, spec: PolicySpec, modes: int) -> None:
        """Make the trunk and its heads.

        Args:
            config: The policy's own config.
            spec: The contract with the world.
            modes: K; one is a plain Gaussian policy.
        """
        super().__init__(config, spec)
        self.modes = modes
        size = modes * (1 + 2 * spec.horizon * spec.action_dim)
        self.net = MLP(spec.n_obs_steps * self.observation.dim, config.hidden, size)

    def fit_normalizers(self, episodes: Episodes) -> None:
        """Fit the normalisers, and start the modes' means where chunks of the data cluster.

        A density over a whole chunk is so sharp that, from means that start alike, one mode would win every sample
        at once and the others would never learn.
        """
        super().fit_normalizers(episodes)
        spec = self.spec
        windows = Windows(episodes, spec.n_obs_steps, spec.horizon)
        rng = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(windows), generator=rng)[:CLUSTERED].to(episodes.device)
        chunks = self.action_normalizer.normalize(windows.gather(chosen)["action"]).flatten(1)
        head = self.net[-1]
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            head.bias[self.modes :].unflatten(0, (2, self.modes, -1))[0].copy_(cluster(chunks, self.modes))

    def _heads(self, cond: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-weights (B, K), means and standard deviations (B, K, Tp, A)."""
        logits, body = self.net(cond.flatten(1)).tensor_split([self.modes], -1)
        body = body.unflatten(-1, (2, self.modes, self.spec.horizon, self.spec.action_dim))
        return logits.log_softmax(-1), body[:, 0], softplus(body[:, 1]) + self.config.min_std

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        log_weights, mean, std = self._heads(cond)
        # Gumbel-max over the modes, with uniforms obtained from normals so that each row has one source of noise
        normal = standard_normal((len(cond), n, self.modes), generator, cond.device).double()
        uniform = torch.special.ndtr(normal).clamp(1e-12, 1 - 1e-12)
        mode = (log_weights[:, None] - torch.log(-torch.log(uniform))).argmax(-1)  # (B, n)
        row = torch.arange(len(cond), device=cond.device)[:, None]
        if self.config.deterministic:
            return mean[row, mode]
        noise = standard_normal((len(cond), n, *mean.shape[2:]), generator, cond.device)
        return mean[row, mode] + std[row, mode] * noise

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        """Return -log p(the steps that count) over their number of entries."""
        log_weights, mean, std = self._heads(cond)
        z = (action[:, None] - mean) / std
        log_prob = -0.5 * z**2 - std.log() - 0.5 * math.log(2 * math.pi)  # (B, K, Tp, A)
        joint = torch.logsumexp(log_weights + (log_prob.sum(-1) * mask[:, None]).sum(-1), -1)  # (B,)
        return -joint / (mask.sum(-1) * action.shape[-1])


def cluster(points: Tensor, count: int, rounds: int = 20) -> Tensor:
    """Find cluster centres by Lloyd's algorithm, started from points far from each other.

    Args:
        points: (N, D).
        count: K, centres.
        rounds: Iterations.

    Returns:
        (K, D).
    """
    centres = points.mean(0, keepdim=True)
    if count > 1:
        centres = points[(points - centres).norm(dim=1).argmax()][None]
    while len(centres) < count:
        centres = torch.cat([centres, points[torch.cdist(points, centres).amin(1).argmax()][None]])
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        for index in range(count):
            members = points[nearest == index]
            if len(members):
                centres[index] = members.mean(0)
    return centres
