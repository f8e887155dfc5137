"""Decision Diffuser (Ajay et al. 2023): plan the states of a good future, and act so that they come about.

A field over windows of states s_0 .. s_Tp is told a return and guided towards it; it always sees the observed states as
they are. Actions are read from consecutive states by inverse dynamics, a_h = f(s_h, s_h+1). States are the normalised
low-dim observations. No value function is learned.

Beside the return it may be told numbers of the data (labels), each left out of some samples by itself, so that it can
be asked for any of them, and for several at once: what each alone changes is added up.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

import torch
from pydantic import Field as Bound
from pydantic import PositiveInt, model_validator
from torch import Generator, Tensor

from robopol.config import OneOf
from robopol.data.normalizer import Normalizer, NormalizerMode
from robopol.data.reach import warn_of_unplanned
from robopol.data.windows import label_of
from robopol.errors import ConfigError, DataError, ShapeError
from robopol.networks.denoiser import Walk
from robopol.networks.mlp import MLP
from robopol.networks.unet import UNetConfig
from robopol.policies.field import Field, Schedule
from robopol.policies.generative import Prediction
from robopol.policies.guidance import GuidedField, SummedField
from robopol.policies.observation import LowDimObservation
from robopol.policies.part import Needs, PolicySpec
from robopol.policies.paths import Level
from robopol.policies.paths.discrete_vp import DiscreteVPConfig
from robopol.policies.policy import Generators, PolicyConfig, standard_normal
from robopol.policies.samplers import Sampler
from robopol.policies.samplers.first_order import DDPMConfig
from robopol.policies.walking import Backend, WalkingPolicy

if TYPE_CHECKING:
    from robopol.data import Episodes


class DecisionDiffuserConfig(PolicyConfig):
    """A planner of states. As published, but for a shorter window, fewer steps and its prediction.

    Inverse dynamics need the next state to a small part of a step. Clean states are predicted that well long before the
    noise is, which was published.

    Attributes:
        path: How noise and data are mixed.
        prediction: What the network predicts; see `robopol.policies.prediction`.
        net: The denoiser of Tp + 1 states.
        sampler: How a plan is walked from noise.
        target: The return that is asked for: -1 and 1 are the 1 % and the 99 % quantile of the training data's. None
            asks for none.
        labels: Observation of one entry that the data have and that is not looked at, e.g. whether an episode was
            careful -> what is asked of it, on the same scale; None asks for none.
        weight: How far the plan is pulled to each of these; 1 as it was learned, 0 not at all.
        drop: Share of the training samples from which the return is left out, and each label by itself.
        temperature: Factor on all noise of the walk; below 1 plans keep closer to the likely ones. What a scheduler of
            diffusers draws by itself cannot be scaled, and is refused.
        discount: Of the returns, per step.
        return_features: Size of the embedding of a return.
        inverse_hidden: Widths of the inverse dynamics' hidden layers.
        loss_on_padding: Whether plans are trained to stay where an episode ended. Inverse dynamics never are.
    """

    kind: Literal["decision_diffuser"] = "decision_diffuser"
    n_obs_steps: int = Bound(1, ge=1)
    horizon: int = Bound(15, ge=1)
    path: Annotated[Any, OneOf("path")] = DiscreteVPConfig()
    prediction: Prediction = "x0"
    net: Annotated[Any, OneOf("net")] = UNetConfig()
    sampler: Annotated[Any, OneOf("sampler")] = DDPMConfig(steps=20)
    target: float | None = 0.9
    labels: dict[str, float | None] = Bound(default_factory=dict)
    weight: float = Bound(1.2, ge=0)
    drop: float = Bound(0.25, gt=0, lt=1)
    temperature: float = Bound(0.5, ge=0)
    discount: float = Bound(0.99, gt=0, le=1)
    return_features: PositiveInt = 64
    inverse_hidden: tuple[PositiveInt, ...] = (256, 256)
    obs_normalization: NormalizerMode = "minmax"
    loss_on_padding: bool = False

    @model_validator(mode="after")
    def _clips_what_is_scaled(self) -> Self:
        if self.obs_normalization not in ("minmax", "quantile") and self.sampler.clip != "never":
            raise ValueError(
                f"states that are scaled by '{self.obs_normalization}' leave [-1, 1], where the sampler clips plans: "
                "set sampler.clip=never, or obs_normalization=minmax"
            )
        return self

    def select(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """See `PartConfig.select`; labels are not looked at."""
        return super().select({key: shape for key, shape in shapes.items() if key not in self.labels})

    @property
    def asked(self) -> dict[int, float]:
        """What is asked for: 0 is the return, then come the labels."""
        values = enumerate([self.target, *self.labels.values()])
        return {index: value for index, value in values if value is not None}

    def build(self, spec: PolicySpec) -> "DecisionDiffuser":
        """Return the policy, its weights untrained.

        Args:
            spec: The contract with the world.

        Raises:
            ConfigError: If it is to look at pictures, or the parts do not fit each other.
        """
        return DecisionDiffuser(self, spec)


class DecisionDiffuser(WalkingPolicy):
    """See the module's text."""

    config: DecisionDiffuserConfig
    scaling = "obs_normalization"

    def __init__(self, config: DecisionDiffuserConfig, spec: PolicySpec) -> None:
        """Assemble the parts; see `DecisionDiffuserConfig.build`."""
        super().__init__(config, spec)
        if not isinstance(self.observation, LowDimObservation):
            raise ConfigError(
                "a decision diffuser plans what it will observe, and cannot plan pictures: use policy/encoder=low_dim"
            )
        states = self.observation.dim
        net = config.net.build(states, spec.horizon + 1, config.return_features, 1)
        self.field = Field(net, config.path.build(), config.prediction)
        self.returns = Normalizer(1 + len(config.labels), "quantile")
        self.embed = MLP(2 + 2 * len(config.labels), (2 * config.return_features,), config.return_features, "mish")
        self.inverse = MLP(2 * states, config.inverse_hidden, spec.action_dim)
        self.resample(config.sampler)

    @property
    def walked(self) -> Field:
        """See `WalkingPolicy.walked`; it is pulled to what is asked for, and pinned when there are observations."""
        if len(self.config.asked) > 1:
            return SummedField(self.field, self._unasked, self.config.weight)
        return GuidedField(self.field, self._unasked, self.config.weight if self.config.asked else 0.0)

    @property
    def needs(self) -> Needs:
        """See `Policy.needs`."""
        return Needs(plan=True, discount=self.config.discount, labels=tuple(self.config.labels))

    def for_acting(self, backend: Backend = "packed") -> None:
        """See `WalkingPolicy.for_acting`; a CUDA graph has no place for what the plan is pinned to."""
        if backend == "cuda_graph":
            raise ConfigError(
                "a decision diffuser's walk is pinned to what it sees, and cannot be captured in a CUDA graph: use "
                "policy.backend=compile"
            )
        super().for_acting(backend)

    def _walker(self, sampler: Any) -> Sampler[Any]:
        built = super()._walker(sampler)
        if self.config.temperature != 1 and built.draws_itself(self.field.path):
            raise ConfigError(
                f"temperature={self.config.temperature} scales the noise of the walk, which {sampler.scheduler} of "
                "diffusers draws itself: set policy.temperature=1, or another policy.sampler, e.g. ddpm"
            )
        return built

    def fit_normalizers(self, episodes: "Episodes") -> None:
        """See `Policy.fit_normalizers`; the scales of returns and labels are fitted too.

        Raises:
            DataError: If there is no such label, or nothing could be asked of one.
        """
        super().fit_normalizers(episodes)
        observation = cast(LowDimObservation, self.observation)
        states = torch.cat([episodes.obs[key] for key in observation.keys], -1)
        sizes = zip(observation.keys, observation.sizes, strict=True)
        names = [f"{key}[{i}]" for key, size in sizes for i in range(size)]
        clips = self.config.sampler.clip != "never"
        warn_of_unplanned(observation.normalizer, states, names, clips, "observation")
        labels = [label_of(episodes, name).double() for name in self.config.labels]
        self.returns.fit(torch.stack([episodes.returns_to_go(self.config.discount), *labels], -1))
        for name, width in zip(self.config.labels, self.returns.unscale[1:].tolist(), strict=True):
            if width == 0:  # else it would be told as 0 always, and asked for in vain
                raise DataError(
                    f"label '{name}' is the same in 98 % of the steps: nothing can be asked of it; record more of "
                    "what is rare, or leave the label out"
                )

    def loss(self, batch: Mapping[str, Any], generator: Generator | None = None) -> Tensor:
        """Return half the loss of the plan plus half that of the inverse dynamics, (B,).

        Args:
            batch: See `robopol.data.windows.Batch`, with a plan and a return-to-go.
            generator: Source of the loss's own randomness, on the policy's device.

        Raises:
            ShapeError: If the batch lacks a part, or one is shaped wrongly.
        """
        wanted = {"plan", "plan_mask", "return_to_go"} | ({"labels"} if self.config.labels else set())
        if missing := wanted - batch.keys():
            raise ShapeError(f"the batch lacks {', '.join(sorted(missing))}: draw it with this policy's `needs`")
        seen, states = self.spec.n_obs_steps, self.observation(batch["plan"], self.spec.horizon + 1)
        exists, mask = batch["plan_mask"].float(), batch["mask"].float()

        labels = [batch["labels"][name] for name in self.config.labels]
        y = self.returns.normalize(torch.stack([batch["return_to_go"], *labels], -1))
        if self.training:
            told = torch.rand(y.shape, generator=generator, device=y.device) >= self.config.drop
        else:
            told = torch.ones_like(y, dtype=torch.bool)
        cond = self._embed(y, told)
        error = PinnedField(self.field, states[:, :seen]).loss(states, cond, generator).mean(-1)
        counts = torch.ones_like(exists) if self.config.loss_on_padding else exists
        plan = _masked_mean(error[:, seen:], counts[:, seen:])

        action = self.action_normalizer.normalize(batch["action"])
        error = ((self._actions(states) - action) ** 2).mean(-1)
        return 0.5 * (plan + _masked_mean(error, mask * exists[:, :-1] * exists[:, 1:]))

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        seen = cond.repeat_interleave(n, 0)
        asked = self._asked(cond.device).expand(len(seen), -1, -1)
        field = PinnedField(self.walked, seen)
        shape = (len(cond), n, self.spec.horizon + 1, cond.shape[-1])

        def draw() -> Tensor:
            return self.config.temperature * standard_normal(shape, generator, cond.device).flatten(0, 1)

        states = field.pin(self.sampler.sample(field, draw(), asked, draw))
        return self._actions(states).unflatten(0, shape[:2])

    def _actions(self, states: Tensor) -> Tensor:
        """Return normalised actions (B, Tp, A) between states (B, Tp + 1, S)."""
        actions: Tensor = self.inverse(torch.cat([states[:, :-1], states[:, 1:]], -1))
        return actions.float()

    def _asked(self, device: torch.device) -> Tensor:
        """Return the embedding of each thing that is asked for, alone, (1, K, F); of none of them if there are none."""
        count, asked = self.returns.dim, self.config.asked
        y, told = torch.zeros(max(len(asked), 1), count), torch.zeros(max(len(asked), 1), count, dtype=torch.bool)
        for row, (index, value) in enumerate(asked.items()):
            y[row, index], told[row, index] = value, True
        return self._embed(y.to(device), told.to(device)).transpose(0, 1)

    def _embed(self, y: Tensor, told: Tensor) -> Tensor:
        """Embed normalised returns and labels (B, K) as (B, 1, F); what is not told is as if there were none."""
        embedded: Tensor = self.embed(torch.cat([y * told, (~told).float()], -1))
        return embedded.float()[:, None]

    def _unasked(self, cond: Tensor) -> Tensor:
        """Return the embedding of nothing that is asked for, shaped like ``cond`` (B, 1, F)."""
        nothing = torch.zeros(1, self.returns.dim, device=cond.device)
        return self._embed(nothing, nothing.bool()).expand_as(cond)


class PinnedField(Field):
    """A field that is shown the first rows of every state as they will be, without noise."""

    def __init__(self, field: Field, rows: Tensor) -> None:
        """Pin the first rows.

        Args:
            field: What is asked; it was trained with pinned rows.
            rows: Their clean values, (B, K, S).
        """
        super().__init__(field.net, field.path, field.prediction)
        self.field, self.rows = field, rows

    def pin(self, x: Tensor) -> Tensor:
        """Return states (B, H, S) with the first rows replaced."""
        return torch.cat([self.rows, x[:, self.rows.shape[1] :]], 1)

    def prepare(self, schedule: Schedule, cond: Tensor) -> Walk:
        """See `Field.prepare`."""
        walk = self.field.prepare(schedule, cond)
        return lambda x, i: walk(self.pin(x), i)

    def _output(self, x: Tensor, t: Tensor, level: Level, cond: Tensor) -> Tensor:
        return self.field._output(self.pin(x), t, level, cond)


def _masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """Average (B, H) over the steps that count; 0 where none does."""
    return (error * mask).sum(-1) / mask.sum(-1).clamp(min=1)
