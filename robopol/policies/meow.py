"""MEow: an energy-based normalising flow as a policy, actor and critic at once (Chao et al. 2024)."""

from collections.abc import Mapping
from typing import Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Generator, Tensor

from robopol.data import Episodes, Windows
from robopol.errors import ConfigError, ShapeError
from robopol.networks.energy_flow import CouplingKind, EnergyFlow
from robopol.policies.gmm import CLUSTERED, cluster
from robopol.policies.part import PolicySpec
from robopol.policies.policy import Generators, Policy, PolicyConfig, standard_normal

ROUNDING = 1e-5
"""Share of the box by which normalised actions may lie outside: those at their bounds do, a little."""


class MEowConfig(PolicyConfig):
    """An energy-based normalising flow over the whole normalised chunk (Chao et al. 2024, arXiv 2405.13629).

    The released network is ``modes=1 coupling=additive hidden=[64,64] log_std=[-5,-0.3] box=1 layer_norm=true
    dropout=0.1``, there with a learned slope in its activations and a prior centred at 0. Its density has a single peak
    before the squash, which cannot hold two ways of doing a task; the defaults can.

    Attributes:
        modes: Gaussians of the prior, K.
        coupling: ``affine`` couplings scale and shift, ``additive`` ones only shift.
        pairs: Pairs of couplings; none leaves a squashed mixture.
        hidden: Hidden sizes of the prior's network and of each coupling's.
        layer_norm: Whether the couplings' hidden layers are normalised.
        dropout: Share of the couplings' hidden layers that is left out at random while they learn.
        shift_hidden: Hidden sizes of each of the two networks of b(s), which Q and V need and the density does not.
        log_std: Smallest and largest logarithm of the prior's standard deviation.
        box: Half width of the box that normalised actions lie in. The flow squashes by tanh, and the edge lies at
            infinity before it; the box is wider than the data, by some `min_std`, as these reach -1 and 1.
        alpha: Temperature: how much return an improbable action must bring. Cloning does not depend on it.
        min_std: Standard deviation of the noise that is added to normalised actions in training, which is the
            smallest width of the learned density. Steps beyond an episode's end repeat the last action exactly, and
            the density of such a window would grow without bound.
        deterministic: Act with the centre of a drawn Gaussian, carried through the couplings, instead of a sample
            around it.
    """

    kind: Literal["meow"] = "meow"
    modes: PositiveInt = 5
    coupling: CouplingKind = "affine"
    pairs: int = Field(2, ge=0)
    hidden: tuple[PositiveInt, ...] = (256, 256)
    layer_norm: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)
    shift_hidden: tuple[PositiveInt, ...] = (256, 256)
    log_std: tuple[float, float] = (-5.0, -0.3)
    box: float = Field(1.25, ge=1)
    alpha: float = Field(0.25, gt=0)
    min_std: float = Field(0.05, ge=0)
    deterministic: bool = True

    @model_validator(mode="after")
    def _whole_windows(self) -> Self:
        if not self.loss_on_padding:
            raise ValueError(
                "loss_on_padding=false needs the density of a part of a window, which a flow does not have"
            )
        return self

    def build(self, spec: PolicySpec) -> "MEowPolicy":
        """Return the policy, its weights untrained."""
        return MEowPolicy(self, spec)


class MEowPolicy(Policy):
    """One `EnergyFlow` over the flattened window gives samples, density, Q and soft V.

    Q and V are in the unit of the reward. The integral between them runs over normalised actions, as in SAC, and over
    the action entries that vary: V = alpha log int exp(Q / alpha). Hence (Q - V) / alpha differs from `log_prob`,
    which is a density in environment units, by a constant.
    """

    config: MEowConfig

    def __init__(self, config: MEowConfig, spec: PolicySpec) -> None:
        """Make the flow.

        Args:
            config: The policy's own config.
            spec: The contract with the world.
        """
        super().__init__(config, spec)
        self.min_std = config.min_std
        self.flow = EnergyFlow(
            spec.horizon * spec.action_dim,
            spec.n_obs_steps * self.observation.dim,
            modes=config.modes,
            coupling=config.coupling,
            pairs=config.pairs,
            hidden=config.hidden,
            shift_hidden=config.shift_hidden,
            log_std=config.log_std,
            box=config.box,
            alpha=config.alpha,
            layer_norm=config.layer_norm,
            dropout=config.dropout,
        )

    def fit_normalizers(self, episodes: Episodes) -> None:
        """Fit the normalisers, start the Gaussians where chunks cluster, and leave out entries that never vary.

        A constant entry has no density: it would reward ever smaller widths, whatever the others do.

        Raises:
            ConfigError: If actions lie outside the box.
        """
        super().fit_normalizers(episodes)
        spec, normalizer = self.spec, self.action_normalizer
        reach = normalizer.normalize(episodes.action).abs().max().item()
        if reach > self.flow.box * (1 + ROUNDING):
            raise ConfigError(
                f"normalised actions reach {reach:.2f}, outside policy.box={self.flow.box}: use "
                "policy.action_normalization=minmax or a wider box"
            )
        windows = Windows(episodes, spec.n_obs_steps, spec.horizon)
        rng = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(windows), generator=rng)[:CLUSTERED].to(episodes.device)
        chunks = normalizer.normalize(windows.gather(chosen)["action"]).flatten(1)
        self.flow.start_at(cluster(chunks, self.flow.modes), (normalizer.unscale > 0).repeat(spec.horizon))

    def sample(self, obs: Mapping[str, Tensor], n: int = 1, generator: Generators = None) -> tuple[Tensor, Tensor]:
        """Draw windows, whatever `deterministic` says of acting, with their log-densities.

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first.
            n: Windows for each row.
            generator: As for `act`.

        Returns:
            (B, n, Tp, A) in environment units, and (B, n) as `log_prob` returns them; both can be differentiated in the
            weights.
        """
        cond = self.observation(obs, self.spec.n_obs_steps).flatten(1)
        noise = standard_normal((len(cond), n, 1 + self.flow.action_size), generator, cond.device)
        flat, log_prob = self.flow.sample(cond[:, None], noise)
        windows = self.action_normalizer.unnormalize(flat.unflatten(-1, (self.spec.horizon, self.spec.action_dim)))
        return windows, log_prob + self._unit()

    def log_prob(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """Return the exact log-density of windows.

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first.
            windows: (B, Tp, A), or several for each row (B, n, Tp, A), in environment units.

        Returns:
            (B,) or (B, n): logarithm of a density in environment units, over the entries that vary.

        Raises:
            ShapeError: If an observation or the windows are shaped wrongly.
        """
        return self.flow.log_prob(*self._inputs(obs, windows)) + self._unit()

    def q(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """Return both heads of Q, (2, B) or (2, B, n); arguments and errors as for `log_prob`."""
        return self.flow.q(*self._inputs(obs, windows))

    def v(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return both heads of the soft value, (2, B).

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first.
        """
        return self.flow.v(self.observation(obs, self.spec.n_obs_steps).flatten(1))

    def _unit(self) -> Tensor:
        """Return what takes a log-density in normalised units to environment units, ()."""
        return self.spec.horizon * self.action_normalizer.scale.log().sum()

    def _inputs(self, obs: Mapping[str, Tensor], windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the flow takes: conditions (B, [1,] C) and flat normalised windows (B, [n,] D)."""
        cond = self.observation(obs, self.spec.n_obs_steps).flatten(1)
        wanted = (self.spec.horizon, self.spec.action_dim)
        if tuple(windows.shape[-2:]) != wanted or windows.dim() not in (3, 4) or len(windows) != len(cond):
            raise ShapeError(
                f"the windows have shape {tuple(windows.shape)}; {len(cond)} observations go with ({len(cond)}, "
                f"{wanted[0]}, {wanted[1]}) or ({len(cond)}, n, {wanted[0]}, {wanted[1]})"
            )
        flat = self.action_normalizer.normalize(windows).flatten(-2)
        return cond if windows.dim() == 3 else cond[:, None], flat

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        noise = standard_normal((len(cond), n, 1 + self.flow.action_size), generator, cond.device)
        if self.config.deterministic:
            noise = torch.cat([noise[..., :1], torch.zeros_like(noise[..., 1:])], -1)
        flat, _ = self.flow.sample(cond.flatten(1)[:, None], noise)
        return flat.unflatten(-1, (self.spec.horizon, self.spec.action_dim))

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        """Return -log p(the window with noise) over its number of entries that vary."""
        noisy = action + self.min_std * standard_normal(action.shape, generator, action.device)
        return -self.flow.log_prob(cond.flatten(1), noisy.flatten(1)) / self.flow.free.sum()
