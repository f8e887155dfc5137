"""EBT-Policy (Davies et al. 2025): acting descends a learned scalar energy of the chunk, given the observation."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from robopol.config import OneOf
from robopol.errors import ShapeError
from robopol.networks.autograd import recordable
from robopol.networks.energy_mlp import EnergyMLPConfig
from robopol.policies.part import PolicySpec
from robopol.policies.policy import Generators, Policy, PolicyConfig, check_generators, standard_normal


class EBTConfig(PolicyConfig):
    """A scalar energy, trained by descending it and comparing where that ends with the demonstration.

    Of a normalised window x of N = Tp A entries and an observation it is

        E(x) = |x|^2 / (2 N) + network(x, observation).

    The first term is the energy of the noise that descents start from; without it the network has to learn how to take
    that noise away, entry by entry. A step looks ahead along the last move u, as Nesterov's method does, and descends
    from there:

        y = x + momentum u,   x' = y - alpha N dE/dy,   u' = x' - x.

    The published training (``train_starts=1``) regresses the end of a descent from noise on a demonstration that has
    nothing to do with that noise. Its optimum is the mean of all demonstrated ways, whatever the network. So here
    several descents are tried for each demonstration, and the one that ends nearest to it is trained, as in implicit
    maximum likelihood (Li & Malik 2018; for policies, Rana et al. 2025): different starts then lead to different ways.
    The authors' code also scales each window to unit root mean square before a step, which puts small actions out of
    reach but for the last step, and multiplies alpha by the exponential of the energy, which with the first term
    diverges; neither is done here. It has momentum 0.9 and 6 to 10 steps in training.

    Attributes:
        energy: The network: (x (B, Tp, A), observations (B, To, D)) -> (B,), twice differentiable.
        step_size: alpha before training. It is learned.
        step_rate: How fast alpha is learned: an optimiser's step that moves a weight by d multiplies alpha by
            exp(step_rate d). EBT's own rates for alpha itself, 1500 times the others at alpha = 500, are 3 here.
        momentum: Share of the last move along which a step looks ahead.
        noise: Standard deviations of the Langevin noise after the first and before the last step, in normalised action
            units. In between it falls as half a cosine. Training only.
        train_steps: Fewest and most steps of a descent in training, drawn for each sample.
        train_starts: Descents tried for each demonstration, of which one is trained.
        train_rest: Share of samples that start at the demonstration itself, which teaches that it is at rest.
        max_steps: Most steps when acting.
        tolerance: Acting stops after a step whose gradient part, y - x', has a root mean square of at most this, in
            normalised action units.
        starts: Descents for each proposal when acting; the one that ends at the lowest energy is taken.
    """

    kind: Literal["ebt"] = "ebt"
    energy: Annotated[Any, OneOf("energy")] = EnergyMLPConfig()
    step_size: float = Field(1.0, gt=0)
    step_rate: float = Field(3.0, ge=0)
    momentum: float = Field(0.5, ge=0, lt=1)
    noise: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.2, 0.002)
    train_steps: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (1, 4)
    train_starts: int = Field(8, ge=1)
    train_rest: float = Field(0.5, ge=0, le=1)
    max_steps: int = Field(20, ge=1)
    tolerance: float = Field(0.01, ge=0)
    starts: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.train_steps[0] > self.train_steps[1]:
            raise ValueError(f"train_steps are the fewest and the most, got {list(self.train_steps)}")
        return self

    def build(self, spec: PolicySpec) -> "EBTPolicy":
        """Return the policy, its weights untrained."""
        return EBTPolicy(self, spec)


class Descent(NamedTuple):
    """Where descents ended.

    Attributes:
        windows: (..., Tp, A).
        energy: Energy there, (...).
        steps: Steps that were taken, (...), int64.
    """

    windows: Tensor
    energy: Tensor
    steps: Tensor


class EBTPolicy(Policy):
    """See `EBTConfig`."""

    config: EBTConfig

    def __init__(self, config: EBTConfig, spec: PolicySpec) -> None:
        """Make the energy network and the step size.

        Args:
            config: The policy's own config.
            spec: The contract with the world.
        """
        super().__init__(config, spec)
        self.net: nn.Module = config.energy.build(spec.action_dim, spec.horizon, self.observation.dim, spec.n_obs_steps)
        self.log_step = nn.Parameter(torch.zeros(()))

    @property
    def step_size(self) -> Tensor:
        """alpha, as learned so far."""
        return self.config.step_size * torch.exp(self.config.step_rate * self.log_step)

    def energy(self, obs: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """Return the energy of given windows: low where they look like what was demonstrated.

        It is no log-density: only energies for one observation can be compared with each other.

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first.
            windows: (B, Tp, A) in environment units, from the oldest observation on.

        Returns:
            (B,), differentiable in the windows.

        Raises:
            ShapeError: If an observation or the windows are shaped wrongly.
        """
        cond = self.observation(obs, self.spec.n_obs_steps)
        wanted = (len(cond), self.spec.horizon, self.spec.action_dim)
        if tuple(windows.shape) != wanted:
            raise ShapeError(f"the windows have shape {tuple(windows.shape)}, the energy needs (B, Tp, A) = {wanted}")
        return self._energy(self.action_normalizer.normalize(windows), cond)

    @torch.no_grad()
    def plan_with_energy(self, obs: Mapping[str, Tensor], n: int = 1, generator: Generators = None) -> Descent:
        """Propose windows, and say how sure the policy is of each.

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first.
            n: Proposals for each row.
            generator: One generator, or one for each of the B rows; None draws from torch's global generator.

        Returns:
            Windows (B, n, Tp, A) in environment units, from the oldest observation on; their energies (B, n); the steps
            (B, n) that were taken to each.

        Raises:
            ShapeError: If an observation is missing or shaped wrongly.
        """
        cond = self.observation(obs, self.spec.n_obs_steps)
        check_generators(generator, len(cond))
        found = self._propose(cond, n, generator)
        return found._replace(windows=self.action_normalizer.unnormalize(found.windows))

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        return self._propose(cond, n, generator).windows

    def _propose(self, cond: Tensor, n: int, generator: Generators) -> Descent:
        """Descend from ``starts`` noises for each proposal and keep the lowest end; fields (B, n, ...)."""
        starts = self.config.starts
        shape = (len(cond), n, starts, self.spec.horizon, self.spec.action_dim)
        noise = standard_normal(shape, generator, cond.device).flatten(0, 2)
        ends = self._descend(noise, cond.repeat_interleave(n * starts, 0))
        energy = ends.energy.unflatten(0, shape[:3])
        best = energy.argmin(-1) + starts * torch.arange(len(cond) * n, device=cond.device).view(-1, n)
        return Descent(*(field[best] for field in ends))

    def _descend(self, x: Tensor, cond: Tensor) -> Descent:
        """Walk down from ``x`` (B, Tp, A). A row that has come to rest stays where it is, whatever the others do."""
        velocity = torch.zeros_like(x)
        moving = torch.ones(len(x), dtype=torch.bool, device=x.device)
        steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for _ in range(self.config.max_steps):
            after, speed, descent = self._step(x, velocity, cond)
            going = moving[:, None, None]
            x, velocity = torch.where(going, after, x), torch.where(going, speed, velocity)
            steps += moving
            moving &= descent.square().mean((-1, -2)).sqrt() > self.config.tolerance
            if not moving.any():
                break
        return Descent(x, self._energy(x, cond), steps)

    def _step(self, x: Tensor, velocity: Tensor, cond: Tensor, *, learn: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step of `EBTConfig`.

        Args:
            x: Where the step begins, (B, Tp, A); no gradient flows into it.
            velocity: The last move u, (B, Tp, A).
            cond: Encoded observations, (B, To, D).
            learn: Whether gradients are to flow from the results into the network.

        Returns:
            x', u' and y - x', all (B, Tp, A).
        """
        with exact_gradients(x.device):
            y = (x + self.config.momentum * velocity).detach().requires_grad_()
            energy = self._energy(y, recordable(cond))
            (gradient,) = torch.autograd.grad(energy.sum(), y, create_graph=learn)
            descent = self.step_size * y[0].numel() * gradient
            if not learn:
                y, descent = y.detach(), descent.detach()
            after = y - descent
            return after, after - x, descent

    def _energy(self, x: Tensor, cond: Tensor) -> Tensor:
        """Return E (B,) of normalised windows ``x`` (B, Tp, A) given encoded observations (B, To, D)."""
        with torch.autocast(x.device.type, enabled=False):
            energy: Tensor = 0.5 * x.float().square().mean((-1, -2)) + self.net(x.float(), cond.float())
        return energy

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        """Return the squared distance from the demonstration at which the nearest of several short descents ends.

        Gradients flow through its last step alone.
        """
        x, velocity = self._approach(action, cond, generator)  # (B, starts, Tp, A) each
        with torch.no_grad():
            ends, _, _ = self._step(x.flatten(0, 1), velocity.flatten(0, 1), cond.repeat_interleave(x.shape[1], 0))
            nearest = distance(ends.view(x.shape), action[:, None], mask[:, None]).argmin(1)
        row = torch.arange(len(x), device=x.device)
        end, _, _ = self._step(x[row, nearest], velocity[row, nearest], cond, learn=torch.is_grad_enabled())
        return distance(end, action, mask)

    @torch.no_grad()
    def _approach(self, action: Tensor, cond: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Take all but the last step of the descents of training.

        A sample that takes fewer steps than the most begins later by the difference, so that all end together.

        Returns:
            Where the last step begins and the velocity there, both (B, starts, Tp, A).
        """
        (high, low), (fewest, most) = self.config.noise, self.config.train_steps
        rows, count, device = len(action), self.config.train_starts, action.device
        shape = (rows, count, *action.shape[1:])

        def draw() -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        at_rest = torch.rand(rows, 1, 1, 1, generator=generator, device=device) < self.config.train_rest
        late = torch.randint(0, most - fewest + 1, (rows, 1, 1, 1), generator=generator, device=device)
        x = torch.where(at_rest, action[:, None], draw())
        velocity = torch.zeros_like(x)
        many = cond.repeat_interleave(count, 0)
        for k in range(most - 1):
            progress = (k - late) / (most - 1 - late).clamp(min=1)
            std = low + (high - low) * (1 + torch.cos(math.pi * progress)) / 2
            after, speed, _ = self._step(x.flatten(0, 1), velocity.flatten(0, 1), many)
            begun = k >= late
            x = torch.where(begun, after.view(shape) + std * draw(), x)
            velocity = torch.where(begun, speed.view(shape), velocity)
        return x, velocity


def distance(x: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared difference over the steps that count.

    Args:
        x: (..., Tp, A).
        target: Broadcasts with ``x``.
        mask: 1 for the steps that count, 0 for the others, broadcasts with (..., Tp).

    Returns:
        (...).
    """
    return ((x - target).square().mean(-1) * mask).sum(-1) / mask.sum(-1)


@contextmanager
def exact_gradients(device: torch.device) -> Iterator[None]:
    """Record gradients, in float32, in whatever mode the caller is: second derivatives in bfloat16 diverge."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield
