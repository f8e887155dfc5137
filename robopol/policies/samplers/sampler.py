"""What every sampler is: a walk down a grid of noise levels that is known before it begins."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.config import Config
from robopol.errors import ConfigError
from robopol.policies.field import Field, Schedule
from robopol.policies.paths import Level, Path
from robopol.policies.paths.path import DATA_END
from robopol.policies.prediction import Estimate, reading

Draw = Callable[[], Tensor]
"""Returns the next standard normal tensor, shaped like the chunks that are being sampled."""

Spacing = Literal["leading", "trailing", "linspace", "uniform", "linear", "exponential", "karras"]
Clip = Literal["every", "last", "never"]

DEEPEST = 1e6
"""Largest sigma / alpha at which x0 can be read from a noise prediction."""

RowT = TypeVar("RowT")


class Step(NamedTuple):
    """What happened in one step of a walk.

    Attributes:
        number: 0 for the first step, at the noise end.
        t: Path time before the step.
        kappa: sigma / alpha before the step.
        x: State before the step, (B, Tp, A).
        x0: The estimate that was used, after clipping, (B, Tp, A).
        mean: Mean of the next state, (B, Tp, A).
        std: Standard deviation of every entry of the next state; 0 where the step is deterministic.
        noise: What was drawn for it, (B, Tp, A); None where the step is deterministic.
        next: The next state, (B, Tp, A).
    """

    number: int
    t: float
    kappa: float
    x: Tensor
    x0: Tensor
    mean: Tensor
    std: float
    noise: Tensor | None
    next: Tensor

    def log_prob(self) -> Tensor:
        """Return log N(next; mean, std^2), element by element (B, Tp, A); only for stochastic steps."""
        z = (self.next - self.mean) / self.std
        return -0.5 * z**2 - math.log(self.std) - 0.5 * math.log(2 * math.pi)


Hook = Callable[[Step], Tensor | None]
"""Sees every step of a walk, and may return another next state."""

Stepper = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""(state (B, Tp, A), number of the step) -> (the x0-estimate that was used, the next state), each (B, Tp, A)."""


class Kernel(Protocol):
    """What happens at a level before a walk goes on to the next: the step is taken some times, and led back between."""

    @property
    def count(self) -> int:
        """How often each step is taken, at least 1."""

    def back(self, x: Tensor, x0: Tensor, following: Tensor, now: Level, then: Level, draw: Draw) -> Tensor:
        """Return a state of the level at which the step began.

        Args:
            x: State before the step, (B, Tp, A).
            x0: The estimate that was used, (B, Tp, A).
            following: The next state, (B, Tp, A).
            now: The level before the step.
            then: The level after it.
            draw: Source of noise.
        """


class Visit(NamedTuple):
    """One evaluation of the field on a walk, in numbers.

    Attributes:
        t: Path time.
        at: The path's level there.
        kappa: sigma / alpha.
        x0_x: x0 = x0_x x + x0_out output.
        x0_out: The same.
        eps_x: eps = eps_x x + eps_out output.
        eps_out: The same.
    """

    t: float
    at: Level
    kappa: float
    x0_x: float
    x0_out: float
    eps_x: float
    eps_out: float

    def estimate(self, x: Tensor, output: Tensor, clips: bool) -> Estimate:
        """Read x0 and eps, which stay a pair that makes up x when x0 is clipped to [-1, 1]."""
        x0 = self.x0_x * x + self.x0_out * output
        if not clips:
            return Estimate(x0, self.eps_x * x + self.eps_out * output)
        x0 = x0.clamp(-1, 1)
        return Estimate(x0, (x - self.at.alpha.item() * x0) / self.at.sigma.item())


class Table(NamedTuple, Generic[RowT]):
    """Everything about a walk that is known before it begins.

    Attributes:
        start_std: Standard deviation of the state in which it begins.
        levels: Those at which steps begin, and the data end, S + 1.
        schedule: What the network is told at each evaluation.
        rows: What each step is made of.
    """

    start_std: float
    levels: list[Level]
    schedule: Schedule
    rows: list[RowT]


class SamplerConfig(Config):
    """What all samplers are told.

    Attributes:
        steps: Steps of the walk; None for every level of a discrete chain.
        spacing: How its times are spaced; None as the path has it. See `robopol.policies.paths.Path.grid`.
        clip: What is clipped to [-1, 1], where normalised actions lie: every x0-estimate, the last one, or none.
    """

    steps: int | None = Bound(10, ge=1)
    spacing: Spacing | None = None
    clip: Clip = "last"


class Sampler(ABC, Generic[RowT]):
    """A walk from noise to data, as a pure function of the field, the start and the noise drawn.

    Attributes:
        repeats: Whether a step may be taken more than once.
        jumps: Whether its steps go to the data at once, so that they need no mean of the clean samples.
    """

    repeats: ClassVar[bool] = True
    jumps: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        """Take over the choices.

        Args:
            config: A `SamplerConfig` of the sampler's own kind.
        """
        self.config = config
        self._tables: dict[tuple[Path, str], Table[RowT]] = {}

    def sample(
        self,
        field: Field,
        noise: Tensor,
        cond: Tensor,
        draw: Draw,
        *,
        hook: Hook | None = None,
        kernel: Kernel | None = None,
    ) -> Tensor:
        """Walk from noise to chunks.

        Args:
            field: The field to follow.
            noise: Standard normal, (B, Tp, A).
            cond: Encoded observation history, (B, To, D).
            draw: Source of the noise of stochastic steps.
            hook: Told about every step.
            kernel: What happens at each level; None takes every step once.

        Returns:
            Normalised action chunks, (B, Tp, A).
        """
        return self.walk(field, self.table(field).start_std * noise, cond, draw, hook=hook, kernel=kernel)

    def walk(
        self,
        field: Field,
        x: Tensor,
        cond: Tensor,
        draw: Draw,
        *,
        first: int = 0,
        hook: Hook | None = None,
        kernel: Kernel | None = None,
    ) -> Tensor:
        """Walk the steps from ``first`` on.

        Args:
            field: The field to follow.
            x: State before that step, on the field's path, (B, Tp, A).
            cond: Encoded observation history, (B, To, D).
            draw: Source of the noise of stochastic steps.
            first: Number of the first step that is walked.
            hook: Told about every step.
            kernel: What happens at each level; None takes every step once.

        Returns:
            Normalised action chunks, (B, Tp, A).
        """
        levels = self.table(field).levels
        step = self._steps(field, cond, draw, first, hook)
        for i in range(first, len(levels) - 1):
            x0, following = step(x, i)
            for _ in range(0 if kernel is None else kernel.count - 1):
                x = kernel.back(x, x0, following, levels[i], levels[i + 1], draw)  # type: ignore[union-attr]
                x0, following = step(x, i)
            x = following
        return x.clamp(-1, 1) if self.config.clip == "last" else x

    def steps(self, field: Field, cond: Tensor, draw: Draw, first: int = 0, hook: Hook | None = None) -> Stepper:
        """Return the steps of a walk, to be taken one by one and from any state; see `walk`.

        Args:
            field: The field to follow.
            cond: Encoded observation history, (B, To, D).
            draw: Source of the noise of stochastic steps.
            first: Number of the first step that is taken.
            hook: Told about every step.
        """
        return self._steps(field, cond, draw, first, hook)

    @abstractmethod
    def _steps(self, field: Field, cond: Tensor, draw: Draw, first: int, hook: Hook | None) -> Stepper:
        """Return the steps of a walk that begins at step ``first``; see `walk`. The same step may be taken again."""

    @abstractmethod
    def _rows(self, field: Field, visits: list[Visit], levels: list[Level]) -> list[RowT]:
        """Compute whatever about the steps depends on the noise levels only.

        Args:
            field: The field to follow.
            visits: The S levels at which steps begin.
            levels: The same and the data end, S + 1.
        """

    def times(self, path: Path) -> Tensor:
        """Return the path times at which steps begin, from noise to data, (S,) float64.

        Raises:
            ConfigError: If the path cannot be walked so.
        """
        return path.grid(self.config.steps, self.config.spacing)

    def draws_itself(self, path: Path) -> bool:
        """Return whether its steps draw noise of their own, beside what `Draw` gives them.

        Raises:
            ConfigError: If the path cannot be walked so.
        """
        return False

    def _looks(self, times: Tensor, rows: list[RowT]) -> Tensor:
        """Return the path times at which the field is evaluated, float64: one a step, where nothing else is said."""
        return times

    def table(self, field: Field) -> Table[RowT]:
        """Return what depends on the noise levels only; computed once for a path and a prediction.

        Raises:
            ConfigError: If the field cannot be walked so.
        """
        if not field.says_means and not self.jumps:
            raise ConfigError(
                f"the {self.config.kind} sampler needs the mean of the clean actions, and a consistency model says one "
                "of them: walk it by policy.sampler=consistency, or walk its teacher"
            )
        key = (field.path, field.prediction)
        if key not in self._tables:
            times = self.times(field.path)
            levels = [field.path.level(t) for t in times]
            visits = [visit(field, t, level) for t, level in zip(times.tolist(), levels, strict=True)]
            levels.append(DATA_END)
            rows = self._rows(field, visits, levels)
            schedule = field.schedule(self._looks(times, rows))
            self._tables[key] = Table(field.path.start_std(levels[0]).item(), levels, schedule, rows)
        return self._tables[key]


def visit(field: Field, t: float, level: Level) -> Visit:
    """Return an evaluation of a field in numbers.

    Raises:
        ConfigError: If nothing can be read from the field's prediction there.
    """
    kappa = level.kappa.item()
    if field.prediction in ("eps", "score") and kappa > DEEPEST:
        raise ConfigError(
            f"a network that predicts {field.prediction} says nothing about the action at pure noise (sigma/alpha = "
            f"{kappa:.3g}), where this walk begins: set the sampler's spacing to karras, or predict velocity, v or x0"
        )
    read = (value.item() for value in reading(field.prediction, level, field.path))
    return Visit(t, level, kappa, *(0.0 if abs(value) < 1e-12 else value for value in read))  # rounding is not a term


def move(
    visited: Visit, number: int, x: Tensor, x0: Tensor, mean: Tensor, std: float, draw: Draw, hook: Hook | None
) -> Tensor:
    """Draw the next state, N(mean, std^2), and tell the hook."""
    noise = draw() if std > 0 else None
    following = mean if noise is None else torch.add(mean, noise, alpha=std)
    if hook is None:
        return following
    replaced = hook(Step(number, visited.t, visited.kappa, x, x0, mean, std, noise, following))
    return following if replaced is None else replaced
