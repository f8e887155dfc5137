"""What is trained and saved as one thing: a policy, or a model beside it, with its normalisers inside."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from robopol.config import Config, OneOf
from robopol.data.normalizer import ActionNormalizerMode, Normalizer, NormalizerMode
from robopol.data.windows import Transition
from robopol.envs.config import EnvConfig
from robopol.errors import ConfigError
from robopol.policies.observation import Encoder, LowDimConfig

if TYPE_CHECKING:
    from robopol.data import Episodes


class PolicySpec(Config):
    """The contract between a part and the world that it is for.

    Attributes:
        obs_shapes: Key -> shape of each observation that it looks at.
        action_names: Name of each action entry; their number is A.
        action_low: Lower bounds of the action, in environment units, (A,).
        action_high: Upper bounds, (A,).
        action_space: What an action means, e.g. ``"ee_delta"``.
        control_hz: Actions per second; 0 if unknown.
        n_obs_steps: Observations given to it, To.
        horizon: Actions predicted, Tp, from the time of the oldest observation on.
        n_action_steps: Actions executed before planning again, Ta; of a model, those it judges.
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


class Needs(NamedTuple):
    """What a loss reads of a batch besides the usual; see `robopol.data.windows.Batch`.

    Attributes:
        plan: The observations of the whole window.
        discount: The return-to-go, discounted so; None if it is not read.
        transition: What the next actions earn and where they lead; None if it is not read.
        rewards: The rewards of the whole window.
        bound: What the return-to-go is at least, discounted so; None if it is not read.
        labels: Numbers of the data, observations of one entry, as they are at the newest observation.
        rollout: A whole rollout of the policy as it stands, with its traces, instead of drawn samples.
        trace: Of decisions, where each window begins with one, what the algorithm left with it: name -> shape of one.
            None if windows may begin anywhere.
    """

    plan: bool = False
    discount: float | None = None
    transition: Transition | None = None
    rewards: bool = False
    bound: float | None = None
    labels: tuple[str, ...] = ()
    rollout: bool = False
    trace: Mapping[str, tuple[int, ...]] | None = None

    def joined(self, other: "Needs") -> "Needs":
        """Return what both read.

        Raises:
            ConfigError: If they want different ones of what a batch holds once.
        """
        for name in ("discount", "transition", "bound", "trace"):
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
            labels=tuple(dict.fromkeys((*self.labels, *other.labels))),
            rollout=self.rollout or other.rollout,
            trace=other.trace if self.trace is None else self.trace,
        )


class PartConfig(Config):
    """What all parts are told.

    Attributes:
        encoder: How observations become features, and which ones are looked at.
        obs_normalization: How each low-dim observation entry is scaled.
        action_normalization: How each action entry is scaled; ``bounds`` needs no data.
    """

    encoder: Annotated[Any, OneOf("encoder")] = LowDimConfig()
    obs_normalization: NormalizerMode = "minmax"
    action_normalization: ActionNormalizerMode = "minmax"

    group: ClassVar[str]
    """Its group in `robopol.registry.KINDS`."""

    def select(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return the observations that are looked at, of those that there are; see `EncoderConfig.select`."""
        selected: dict[str, tuple[int, ...]] = self.encoder.select(shapes)
        return selected


class Part(nn.Module):
    """A part. It holds its normalisers: what goes in and what comes out is in environment units."""

    def __init__(self, config: PartConfig, spec: PolicySpec) -> None:
        """Make the normalisers; `fit_normalizers` or a state-dict fills them.

        Args:
            config: The part's own config, kept so that it can be saved.
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
        """Where the weights lie."""
        return next(self.parameters()).device

    @property
    def needs(self) -> Needs:
        """What the loss reads of a batch besides the usual."""
        return Needs()

    def fit_normalizers(self, episodes: "Episodes") -> None:
        """Fit the normalisers to (training) episodes."""
        self.observation.fit(episodes.obs)
        self.action_normalizer.fit(episodes.action)
