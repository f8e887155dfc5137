"""What every policy is: an observation history in, action chunks out, both in environment units."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from robopol.config import Config, OneOf
from robopol.data.normalizer import ActionNormalizerMode, Normalizer, NormalizerMode
from robopol.data.windows import Transition
from robopol.envs.config import EnvConfig
from robopol.errors import ConfigError, ShapeError
from robopol.policies.observation import Encoder, LowDimConfig
from robopol.registry import lookup

if TYPE_CHECKING:
    from robopol.data import Episodes

Generators = torch.Generator | Sequence[torch.Generator] | None
"""Source of a policy's noise: one generator for the batch, or one for each row of it."""


class PolicySpec(Config):
    """The contract between a policy and the world it acts in.

    Attributes:
        obs_shapes: Key -> shape of each observation that the policy looks at.
        action_names: Name of each action entry; their number is A.
        action_low: Lower bounds of the action, in environment units, (A,).
        action_high: Upper bounds, (A,).
        action_space: What an action means, e.g. ``"ee_delta"``.
        control_hz: Actions per second; 0 if unknown.
        n_obs_steps: Observations given to the policy, To.
        horizon: Actions predicted, Tp, from the time of the oldest observation on.
        n_action_steps: Actions executed before planning again, Ta.
        env: The world that it was trained for, if one was named.
    """

    obs_shapes: dict[str, tuple[int, ...]]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_space: str
    control_hz: float = Field(ge=0)
    n_obs_steps: int = Field(ge=1)
    horizon: int = Field(ge=1)
    n_action_steps: int = Field(ge=1)
    env: EnvConfig | None = None

    @model_validator(mode="after")
    def _executable(self) -> Self:
        if not len(self.action_low) == len(self.action_high) == len(self.action_names):
            raise ValueError(
                f"{len(self.action_names)} action names, {len(self.action_low)} lower and "
                f"{len(self.action_high)} upper bounds: their numbers must be equal"
            )
        if self.n_action_steps > self.chunk:
            raise ValueError(
                f"n_action_steps={self.n_action_steps} is more than the {self.chunk} actions that a horizon of "
                f"{self.horizon} with n_obs_steps={self.n_obs_steps} predicts from now on"
            )
        return self

    @property
    def action_dim(self) -> int:
        """A, the number of action entries."""
        return len(self.action_names)

    @property
    def chunk(self) -> int:
        """H = Tp - To + 1, the predicted actions from now on."""
        return self.horizon - self.n_obs_steps + 1


class Previous(NamedTuple):
    """The plan that an episode has now, which the next may begin from.

    Attributes:
        window: (Tp, A) in environment units.
        passed: Control steps since the observation that it was asked for with.
    """

    window: Tensor
    passed: int

    def shifted(self) -> Tensor:
        """Return the window (Tp, A) moved on to now; its last action is repeated."""
        return torch.cat([self.window[self.passed :], self.window[-1:].expand(self.passed, -1)])


class Needs(NamedTuple):
    """What a loss reads of a batch besides the usual; see `robopol.data.windows.Batch`.

    Attributes:
        plan: The observations of the whole window.
        discount: The return-to-go, discounted so; None if it is not read.
        transition: What the next actions earn and where they lead; None if it is not read.
        rewards: The rewards of the whole window.
        bound: What the return-to-go is at least, discounted so; None if it is not read.
        rollout: A whole rollout of the policy as it stands, with its traces, instead of drawn samples.
    """

    plan: bool = False
    discount: float | None = None
    transition: Transition | None = None
    rewards: bool = False
    bound: float | None = None
    rollout: bool = False

    def joined(self, other: "Needs") -> "Needs":
        """Return what both read.

        Raises:
            ConfigError: If they want different ones of what a batch holds once.
        """
        for name in ("discount", "transition", "bound"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if None not in (mine, theirs) and mine != theirs:
                raise ConfigError(
                    f"a batch holds one {name}, and both {mine} and {theirs} are asked for: make them equal"
                )
        return Needs(
            plan=self.plan or other.plan,
            discount=other.discount if self.discount is None else self.discount,
            transition=self.transition or other.transition,
            rewards=self.rewards or other.rewards,
            bound=other.bound if self.bound is None else self.bound,
            rollout=self.rollout or other.rollout,
        )


class PolicyConfig(Config):
    """What all policies are told.

    Attributes:
        n_obs_steps: Observations given to the policy, To.
        horizon: Actions predicted, Tp, from the time of the oldest observation on.
        n_action_steps: Actions executed before planning again, Ta.
        encoder: How observations become features, and which ones are looked at.
        obs_normalization: How each low-dim observation entry is scaled.
        action_normalization: How each action entry is scaled; ``bounds`` needs no data.
        loss_on_padding: Whether the repeated actions beyond an episode's ends are trained on, as published for
            diffusion policies.
    """

    n_obs_steps: int = Field(2, ge=1)
    horizon: int = Field(16, ge=1)
    n_action_steps: int = Field(8, ge=1)
    encoder: Annotated[Any, OneOf("encoder")] = LowDimConfig()
    obs_normalization: NormalizerMode = "minmax"
    action_normalization: ActionNormalizerMode = "minmax"
    loss_on_padding: bool = True

    group: ClassVar[str] = "policy"


class Policy(nn.Module, ABC):
    """A policy. It holds its normalisers: what goes in and what comes out is in environment units.

    Subclasses say what the network does between the two, on normalised values.
    """

    def __init__(self, config: PolicyConfig, spec: PolicySpec) -> None:
        """Make the normalisers; `fit_normalizers` or a state-dict fills them.

        Args:
            config: The policy's own config, kept so that the policy can be saved.
            spec: The contract with the world.
        """
        super().__init__()
        self.config = config
        self.spec = spec
        self.observation: Encoder = config.encoder.build(spec.obs_shapes, config.obs_normalization)
        bounds = (spec.action_low, spec.action_high)
        self.action_normalizer = Normalizer(spec.action_dim, config.action_normalization, bounds)

    @property
    def device(self) -> torch.device:
        """Where the policy's weights lie."""
        return next(self.parameters()).device

    @property
    def rowwise(self) -> bool:
        """Whether each row is computed by itself: then how many there are costs time, and changes no result."""
        return False

    @property
    def noise_shape(self) -> tuple[int, ...] | None:
        """Shape of the standard normal noise that one proposal begins from; None where none comes from outside."""
        return None

    def plan_from(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Propose windows that begin from given noise, which alone decides them.

        Args:
            obs: As for `plan`.
            noise: (B, n, *noise_shape).

        Returns:
            (B, n, Tp, A) float32 in environment units.

        Raises:
            ConfigError: If the policy takes no noise from outside.
        """
        raise ConfigError(
            f"a {self.config.tree()['kind']} policy takes no noise from outside, so it cannot be steered by its noise: "
            "choose among its proposals instead (best_of)"
        )

    @property
    def needs(self) -> Needs:
        """What the loss reads of a batch besides the usual."""
        return Needs()

    def fit_normalizers(self, episodes: "Episodes") -> None:
        """Fit the normalisers to (training) episodes."""
        self.observation.fit(episodes.obs)
        self.action_normalizer.fit(episodes.action)

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
            ShapeError: If an observation is missing or shaped wrongly.
        """
        cond = self.observation(obs, self.spec.n_obs_steps)
        if not (generator is None or isinstance(generator, torch.Generator)) and len(generator) != len(cond):
            raise ShapeError(f"{len(generator)} generators for {len(cond)} rows: give one, or one for each row")
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
    if isinstance(generator, torch.Generator):
        return torch.randn(*shape, generator=generator, device=generator.device).to(device)
    rows = [torch.randn(*shape[1:], generator=g, device=g.device) for g in generator]
    return torch.stack(rows).to(device)
