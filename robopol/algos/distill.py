"""Distillation: a one-step student learns from a saved policy that needs many steps."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field as Bound
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Remembers
from robopol.algos.bc import BC, BCConfig
from robopol.checkpoint import load_policy
from robopol.config import Config, OneOf
from robopol.errors import ConfigError
from robopol.networks.precision import Runtime
from robopol.policies import Policy
from robopol.policies.consistency import ConsistencyPolicy, draw_pairs, ladder, noised
from robopol.policies.generative import GenerativePolicy
from robopol.policies.samplers.first_order import DDIMConfig

SHARED = ("obs_shapes", "action_names", "action_space", "control_hz", "n_obs_steps", "horizon")
"""What the contracts of student and teacher must agree on."""

SCALED = ("encoder", "guidance", "obs_normalization", "action_normalization")
"""What their configs must agree on, so that the teacher's can be copied."""


class Method(Protocol):
    """What the student is compared with."""

    def loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        """Return the student's loss of every sample.

        Args:
            action: Normalised windows of the data, (B, Tp, A).
            cond: Encoded observation history, (B, To, D).
            mask: 1 for the steps that count, 0 for the others, (B, Tp).
            generator: Source of noise and levels.

        Returns:
            (B,).
        """


class TrajectoryConfig(Config):
    """The student is made consistent along the teacher's ODE (consistency distillation; Song et al. 2023, eq. 7).

    A sample of the data is noised to one of the student's levels and taken to the next cleaner one by a Heun step with
    the teacher: two evaluations of it.

    Attributes:
        levels: Noise levels between which the student is made consistent. A Heun step is accurate, so they can be fewer
            than in training without a teacher (Song et al. 2023, section 6.1).
    """

    kind: Literal["trajectory"] = "trajectory"
    levels: int = Bound(18, ge=2)

    def build(self, student: ConsistencyPolicy, teacher: GenerativePolicy) -> "Trajectory":
        """Return the method.

        Args:
            student: Who learns.
            teacher: Who is asked.

        Raises:
            ConfigError: If the student has noise levels that the teacher knows nothing about.
        """
        return Trajectory(self, student, teacher)


class Trajectory:
    """See `TrajectoryConfig`."""

    def __init__(self, config: TrajectoryConfig, student: ConsistencyPolicy, teacher: GenerativePolicy) -> None:
        """Compare the ranges of noise; see `TrajectoryConfig.build`."""
        self.student, self.teacher, self.walked = student, teacher, teacher.walked
        self.ladder = ladder(student.field.path, config.levels)
        (low, high), (lowest, highest) = student.field.path.kappa_range, teacher.field.path.kappa_range
        if low < lowest or high > highest:
            raise ConfigError(
                f"the student's noise levels, sigma/alpha from {low:.3g} to {high:.3g}, reach beyond those that the "
                f"teacher was trained for, {lowest:.3g} to {highest:.3g}: set policy.path.sigma_min and "
                "policy.path.sigma_max to lie within"
            )

    def loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        """See `Method.loss`."""
        t, s = draw_pairs(self.ladder, len(action), generator, action.device)
        noise = torch.randn(action.shape, generator=generator, device=action.device)
        x = noised(self.student.field.path, action, noise, t)
        return self.student.gap(x, t, self.step(x, t, s, cond), s, cond, mask)

    @torch.no_grad()
    def step(self, x: Tensor, t: Tensor, s: Tensor, cond: Tensor) -> Tensor:
        """Follow the teacher's ODE from time t to time s of the student's path by one Heun step.

        In y = x / alpha it reads dy / dkappa = eps (Karras et al. 2022, eq. 4 and algorithm 1).

        Args:
            x: States, (B, Tp, A).
            t: Their path times, (B,).
            s: Path times to go to, (B,).
            cond: Encoded observation history, (B, To, D).

        Returns:
            States at s, (B, Tp, A).
        """
        path = self.student.field.path
        here, there = path.level(t), path.level(s)
        gain, length = _rows(there.alpha / here.alpha, x), _rows(there.alpha * (there.kappa - here.kappa), x)
        first = self._eps(x, t, cond)
        second = self._eps(gain * x + length * first, s, cond)
        return gain * x + length * (first + second) / 2

    def _eps(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        level = self.student.field.path.level(t)
        estimate = self.walked.at(x, level, cond)
        if self.teacher.config.sampler.clip != "every":
            return estimate.eps
        return (x - _rows(level.alpha, x) * estimate.x0.clamp(-1, 1)) / _rows(level.sigma, x)


class SameNoiseConfig(Config):
    """The student's jump from pure noise is regressed on the teacher's walk from the same noise.

    As in FQL (Park et al. 2025) and RL-100 (Lei et al. 2025). From another noise it would learn the mean. It
    learns nothing about smaller levels, so it is a policy of one step.

    Attributes:
        sampler: How the teacher walks; it must not draw noise of its own.
    """

    kind: Literal["same_noise"] = "same_noise"
    sampler: Annotated[Any, OneOf("sampler")] = DDIMConfig()

    def build(self, student: ConsistencyPolicy, teacher: GenerativePolicy) -> "SameNoise":
        """Return the method.

        Args:
            student: Who learns.
            teacher: Who is asked.

        Raises:
            ConfigError: If the teacher's walk draws noise or cannot be walked, or the student takes more than one step.
        """
        return SameNoise(self, student, teacher)


class SameNoise:
    """See `SameNoiseConfig`."""

    def __init__(self, config: SameNoiseConfig, student: ConsistencyPolicy, teacher: GenerativePolicy) -> None:
        """Try the teacher's walk; see `SameNoiseConfig.build`."""
        if student.config.sampler.steps != 1:
            raise ConfigError(
                f"a student of the same noise learns to jump from pure noise only, and is to take "
                f"{student.config.sampler.steps} steps: set policy.sampler.steps=1, or algo.method=trajectory"
            )
        teacher.resample(config.sampler)
        student.config = student.config.model_copy(update={"jumps": 1})
        self.student, self.teacher = student, teacher
        spec = teacher.spec
        nothing = torch.zeros(1, spec.n_obs_steps, teacher.observation.dim, device=teacher.device)
        self.walk(torch.zeros(1, spec.horizon, spec.action_dim, device=teacher.device), nothing)

    def loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        """See `Method.loss`; of the data it looks at the observations only."""
        noise = torch.randn(action.shape, generator=generator, device=action.device)
        error = ((self.student.jump(noise, cond) - self.walk(noise, cond)) ** 2).mean(-1)
        return (error * mask).sum(-1) / mask.sum(-1)

    @torch.no_grad()
    def walk(self, noise: Tensor, cond: Tensor) -> Tensor:
        """Return where the teacher goes from standard normal noise (B, Tp, A)."""
        return self.teacher.sampler.sample(self.teacher.walked, noise, cond, _refuse)


class DistillConfig(BCConfig):
    """Distillation into a consistency policy.

    The student's observation encoder and its normalisers are copies of the teacher's; its network starts anew. A
    teacher that is guided to a goal teaches what it does with its own weight, and the student then has a weight of 1.

    Attributes:
        teacher: A run, a checkpoint or a policy folder of a diffusion, flow or EDM policy.
        method: What the student is compared with.
    """

    kind: Literal["distill"] = "distill"  # type: ignore[assignment]
    teacher: str | None = None
    method: Annotated[Any, OneOf("distillation")] = TrajectoryConfig()

    def build(self, policy: Policy, total_updates: int, runtime: Runtime) -> "Distill":
        """Return the algorithm.

        Args:
            policy: The student, on its device.
            total_updates: Length of the learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If there is no teacher, or they do not fit each other.
            CheckpointError: If the teacher cannot be loaded.
        """
        if self.teacher is None:
            raise ConfigError("a student needs a teacher: set algo.teacher to a run of a diffusion, flow or edm policy")
        return Distill(self, policy, total_updates, runtime, load_policy(self.teacher, policy.device))


class Distill(BC):
    """See `DistillConfig`.

    Attributes:
        teacher: Who is asked.
    """

    policy: ConsistencyPolicy

    def __init__(
        self, config: DistillConfig, policy: Policy, total_updates: int, runtime: Runtime, teacher: Policy
    ) -> None:
        """Take over the teacher's encoder and normalisers; see `DistillConfig.build`."""
        student, walker = _pair(policy, teacher, f"{config.teacher}")
        self.teacher = walker.eval().requires_grad_(False)
        self.method: Method = config.method.build(student, self.teacher)
        super().__init__(config, student, total_updates, runtime)

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`; a resumed run asks the teacher it had, also if its folder holds another by then."""
        return super().beside | {"teacher": self.teacher}

    def losses(self, batch: Mapping[str, Any], step: int, generator: Generator) -> Tensor:
        """See `BC.losses`."""
        policy, mask = self.policy, batch["mask"]
        with torch.no_grad():  # the encoder stays the teacher's
            cond = policy.observation(
                batch["obs"], policy.spec.n_obs_steps, augment=policy.training, generator=generator
            )
        mask = torch.ones_like(mask) if policy.config.loss_on_padding else mask
        return self.method.loss(policy.action_normalizer.normalize(batch["action"]), cond, mask.float(), generator)


def _pair(student: Policy, teacher: Policy, name: str) -> tuple[ConsistencyPolicy, GenerativePolicy]:
    """Check that the two fit each other, and give the student what it takes over."""
    if not isinstance(student, ConsistencyPolicy):
        raise ConfigError(f"a {student.config.tree()['kind']} policy cannot be a student: set policy=consistency")
    if not isinstance(teacher, GenerativePolicy) or isinstance(teacher, ConsistencyPolicy):
        raise ConfigError(
            f"{name} holds a {teacher.config.tree()['kind']} policy, which has no field of actions to learn from: name "
            "one of a diffusion, flow, edm or beso policy by algo.teacher"
        )
    guidance = student.config.guidance
    if guidance is not None and guidance.weight != 1:
        raise ConfigError(
            f"policy.guidance.weight={guidance.weight} would weigh the student's goal once more than its teacher does, "
            "whose weight it learns: leave it at 1, and let the teacher have the weight"
        )
    mine, theirs = (policy.spec.tree() | _unpulled(policy) for policy in (student, teacher))
    faults = [f"{key} is {mine[key]}, there {theirs[key]}" for key in (*SHARED, *SCALED) if mine[key] != theirs[key]]
    if faults:
        raise ConfigError(f"the student does not fit its teacher {name}: {'; '.join(faults)}. Make them equal")
    student.observation.eval().load_state_dict(teacher.observation.state_dict())
    student.action_normalizer.load_state_dict(teacher.action_normalizer.state_dict())
    return student, teacher


def _unpulled(policy: GenerativePolicy) -> dict[str, Any]:
    """Return a policy's config without its guidance's weight, which student and teacher need not share."""
    tree = policy.config.tree()
    if tree["guidance"] is not None:
        tree["guidance"] = {key: value for key, value in tree["guidance"].items() if key != "weight"}
    return tree


def _rows(value: Tensor, x: Tensor) -> Tensor:
    """Shape (B,) to broadcast over x (B, ...), in its dtype."""
    return value.to(x).reshape(-1, *(1,) * (x.ndim - 1))


def _refuse() -> Tensor:
    raise ConfigError(
        "the teacher's walk draws noise of its own, so that the same start does not give the same action: set "
        "algo.method.sampler to a deterministic one, e.g. {kind: ddim, eta: 0, steps: 10}"
    )
