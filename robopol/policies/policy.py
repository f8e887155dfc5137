"""What every policy is: an observation history in, action chunks out, both in environment units."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from robopol.config import Config
from robopol.data.reach import warn_of_unplanned
from robopol.errors import ConfigError, ShapeError
from robopol.policies.given import Source
from robopol.policies.part import Part, PartConfig, PolicySpec
from robopol.registry import lookup

if TYPE_CHECKING:
    from robopol.data import Episodes

Generators = torch.Generator | Sequence[torch.Generator] | None
"""Source of a policy's noise: one generator for the batch, or one for each row of it."""


class Filler(torch.Generator):
    """Source of the noise of a row that only fills up a batch: nobody executes its plan, and no statistics count it."""


class Previous(NamedTuple):
    """The plan that an episode has now, which the next may begin from.

    Attributes:
        window: (Tp, A) in environment units.
        passed: Control steps since the observation that it was asked for with.
        delay: How many of its actions from now on will be over before the next plan can be executed; None is what the
            policy was told once and for all.
    """

    window: Tensor
    passed: int
    delay: int | None = None

    def shifted(self) -> Tensor:
        """Return the window (Tp, A) moved on to now; its last action is repeated."""
        passed = min(self.passed, len(self.window))
        return torch.cat([self.window[passed:], self.window[-1:].expand(passed, -1)])


class Choice(NamedTuple):
    """Which of several plans was chosen.

    Attributes:
        candidates: N, how many there were for each proposal.
        chosen: (B, n) int64, the place of the one that was chosen, from 0.
    """

    candidates: int
    chosen: Tensor


class PolicyConfig(PartConfig):
    """What all policies are told, beside what all parts are.

    Attributes:
        n_obs_steps: Observations given to the policy, To.
        horizon: Actions predicted, Tp, from the time of the oldest observation on.
        n_action_steps: Actions executed before planning again, Ta.
        loss_on_padding: Whether the repeated actions beyond an episode's ends are trained on, as published for
            diffusion policies.
    """

    n_obs_steps: int = Field(2, ge=1)
    horizon: int = Field(16, ge=1)
    n_action_steps: int = Field(8, ge=1)
    loss_on_padding: bool = True

    group: ClassVar[str] = "policy"


class Policy(Part, ABC):
    """A policy. Subclasses say what the network does between observations and actions, on normalised values."""

    config: PolicyConfig

    @property
    def rowwise(self) -> bool:
        """Whether each row is computed by itself: then how many there are costs time, and changes no result."""
        return False

    @property
    def noise_shape(self) -> tuple[int, ...] | None:
        """Shape of the standard normal noise that one proposal begins from; None where none comes from outside."""
        return None

    @property
    def goes_on(self) -> bool:
        """Whether a plan depends on the one before."""
        return False

    @property
    def choice(self) -> Choice | None:
        """How the last plan was chosen; None where there was nothing to choose from, or that is not known here."""
        return None

    @property
    def bounded(self) -> bool:
        """Whether its plans lie within [-1, 1] once they are scaled, whatever was demonstrated."""
        return False

    def fit_normalizers(self, episodes: "Episodes") -> None:
        """See `Part.fit_normalizers`; warns of what was demonstrated and cannot be planned so (`DataWarning`)."""
        super().fit_normalizers(episodes)
        warn_of_unplanned(self.action_normalizer, episodes.action, self.spec.action_names, self.bounded)

    def fingerprint(self) -> bytes:
        """Return 32 bytes that tell it from others: a hash of what it is and of its weights, wherever they lie.

        Raises:
            RemoteError: If they lie elsewhere, and cannot be asked for.
        """
        # not its state-dict: packed weights refuse to be saved, and tell by a buffer what they were packed from
        return fingerprint(self.config, self.spec, dict([*self.named_parameters(), *self.named_buffers()]))

    def plan_from(
        self, obs: Mapping[str, Tensor], noise: Tensor, previous: Sequence[Previous | None] | None = None
    ) -> Tensor:
        """Propose windows that begin from given noise, which alone decides them.

        Args:
            obs: As for `plan`.
            noise: (B, n, *noise_shape).
            previous: As for `plan`.

        Returns:
            (B, n, Tp, A) float32 in environment units.

        Raises:
            ConfigError: If the policy takes no noise from outside.
            ShapeError: If an observation or the noise is shaped wrongly.
        """
        raise ConfigError(
            f"a {self.config.tree()['kind']} policy takes no noise from outside, so it cannot be steered by its noise: "
            "choose among its proposals instead (best_of)"
        )

    def act(self, obs: Mapping[str, Tensor], n: int = 1, generator: Generators = None) -> Tensor:
        """Propose action chunks.

        Args:
            obs: Observation histories, key -> (B, To, ...), oldest first.
            n: Proposals for each row.
            generator: One generator, or one for each of the B rows; None draws from torch's global generator.

        Returns:
            (B, n, H, A) float32 in environment units; entry 0 of H is the action for the newest observation.

        Raises:
            ShapeError: If an observation is missing or shaped wrongly.
        """
        return self.plan(obs, n, generator)[:, :, self.spec.n_obs_steps - 1 :]

    @torch.no_grad()
    def plan(
        self,
        obs: Mapping[str, Tensor],
        n: int = 1,
        generator: Generators = None,
        previous: Sequence[Previous | None] | None = None,
    ) -> Tensor:
        """Propose whole windows, from the time of the oldest observation on.

        Args:
            obs: As for `act`.
            n: As for `act`.
            generator: As for `act`.
            previous: The plan that the episode of each of the B rows has, None where it has none; only a policy that is
                steered to go on from it looks at it.

        Returns:
            (B, n, Tp, A) float32 in environment units.

        Raises:
            ShapeError: If an observation is missing or shaped wrongly, or there is not a generator for each row.
        """
        cond = self.observation(obs, self.spec.n_obs_steps)
        check_generators(generator, len(cond))
        return self.action_normalizer.unnormalize(self._sample(cond, n, generator))

    def inner(self) -> "Policy":
        """Return the policy that was trained: this one, or, of a steered policy, its base."""
        return self

    def steered(self, *steerings: Any) -> "Policy":
        """Return this policy, steered; its weights stay as they are.

        Args:
            *steerings: `robopol.steering.SteeringConfig` objects, in the order in which they act.

        Raises:
            ConfigError: If the policy cannot be steered so, or the steerings do not go together.
        """
        found: Any = lookup("policy", "steered")  # steering lies on a higher floor, and nobody else names it
        steered: Policy = found.over(self, steerings)
        return steered

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Return the training loss of every sample, so that an algorithm can weight it.

        Args:
            batch: ``obs`` key -> (B, To, ...), ``action`` (B, Tp, A), ``mask`` (B, Tp).
            generator: Source of the loss's own randomness, on the policy's device. In training mode that of the
                observation's augmentation too.

        Returns:
            (B,).
        """
        obs, action, mask = batch["obs"], batch["action"], batch["mask"]
        wanted = (self.spec.horizon, self.spec.action_dim)
        if tuple(action.shape[1:]) != wanted:
            raise ShapeError(
                f"the batch's actions have shape {tuple(action.shape)}, the policy needs (B, {wanted[0]}, "
                f"{wanted[1]}): rows, horizon, action entries"
            )
        cond = self.observation(obs, self.spec.n_obs_steps, augment=self.training, generator=generator)
        if self.config.loss_on_padding:
            mask = torch.ones_like(mask)
        return self._loss(self.action_normalizer.normalize(action), cond, mask.float(), generator)

    @abstractmethod
    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        """Sample normalised windows (B, n, Tp, A) given encoded observations ``cond`` (B, To, D)."""

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return each sample's loss (B,); kinds whose loss reads more of a batch override `loss` instead.

        Args:
            action: Normalised windows, (B, Tp, A).
            cond: Encoded observations, (B, To, D).
            mask: 1 for the steps that count, 0 for the others, (B, Tp); at least one step of a row counts.
            generator: Source of the loss's own randomness.
        """
        raise NotImplementedError


def fingerprint(config: Config, spec: PolicySpec, weights: Mapping[str, Tensor], *more: bytes) -> bytes:
    """Return a hash (SHA-256, 32 bytes) of what a policy is.

    Args:
        config: Its config.
        spec: Its contract with the world.
        weights: Name -> tensor.
        more: What else makes it what it is.
    """
    digest = hashlib.sha256(repr(sorted(config.tree().items())).encode() + spec.model_dump_json().encode())
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    for part in more:
        digest.update(part)
    return digest.digest()


def check_generators(generator: Generators, rows: int) -> None:
    """See that there is one source of noise for all rows, or one for each.

    Raises:
        ShapeError: If there are others.
    """
    if not (generator is None or isinstance(generator, torch.Generator)) and len(generator) != rows:
        raise ShapeError(f"{len(generator)} generators for {rows} rows: give one, or one for each row")


def check_noise(noise: Tensor, rows: int, shape: Sequence[int]) -> None:
    """See that noise from outside is (rows, n, *shape).

    Raises:
        ShapeError: If it is not.
    """
    if noise.dim() < 2 or tuple(noise.shape) != (rows, noise.shape[1], *shape):
        raise ShapeError(f"the noise has shape {tuple(noise.shape)}, needed ({rows}, n, {', '.join(map(str, shape))})")


def standard_normal(shape: Sequence[int], generator: Generators, device: torch.device) -> Tensor:
    """Draw standard normal noise whose row b depends on row b's generator alone.

    Args:
        shape: Shape of the result; its first axis are the rows.
        generator: One generator for all rows, or one for each.
        device: Where the result goes. Noise is drawn where its generator lives, so a CPU generator gives the
            same noise whatever device the policy runs on.

    Returns:
        Float32 noise of that shape.
    """
    if generator is None:
        return torch.randn(*shape, device=device)
    if isinstance(generator, Source):
        return generator.normal(shape).to(device)
    if isinstance(generator, torch.Generator):
        return torch.randn(*shape, generator=generator, device=generator.device).to(device)
    rows = [torch.randn(*shape[1:], generator=g, device=g.device) for g in generator]
    return torch.stack(rows).to(device)
