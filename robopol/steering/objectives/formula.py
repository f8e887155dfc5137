"""Formulas of Signal Temporal Logic and how robustly a signal satisfies them (Donze & Maler 2010).

The robustness of a formula is positive where it holds and negative where it does not, and tells by how much the signal
may change before that turns: of a predicate its margin, of "and" and "always" the minimum of what they join, of "or"
and "eventually" the maximum. With a temperature T > 0 they become -T log sum exp(-v / T) and T log sum exp(v / T),
which are smooth, and off by at most T log n for n numbers.

Windows of time are clipped at the signal's end. Where one would begin beyond it there is nothing to judge: a formula
has a robustness as long as its windows begin within the signal, and outer windows are clipped to that.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NOTHING = 1e6
"""Stands for an infinite robustness, m."""


class Formula(ABC):
    """Something that is more or less true of a signal at each time."""

    @abstractmethod
    def robustness(self, signal: Tensor, temperature: float = 0.0, times: int | None = None) -> Tensor:
        """Return how robustly it holds at each time.

        Args:
            signal: (..., L, D).
            temperature: 0 is exact; see the module's text.
            times: At how many times, from the first on; None is all, ``length(L)``. What a plan is judged by is the
                first alone, and parts are then asked for no more than that takes.

        Returns:
            (..., ``times``).
        """

    @abstractmethod
    def length(self, steps: int) -> int:
        """Return at how many times it can be judged in a signal of so many; not positive if at none."""


@dataclass(frozen=True)
class Linear(Formula):
    """The predicate ``weights . signal + constant >= 0``; (D,) weights."""

    weights: tuple[float, ...]
    constant: float

    def robustness(self, signal: Tensor, temperature: float = 0.0, times: int | None = None) -> Tensor:
        """See `Formula.robustness`."""
        return (signal[..., :times, :] * signal.new_tensor(self.weights)).sum(-1) + self.constant

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return steps


@dataclass(frozen=True)
class Near(Formula):
    """The predicate that the signal is within a radius of a point (D,)."""

    point: tuple[float, ...]
    radius: float

    def robustness(self, signal: Tensor, temperature: float = 0.0, times: int | None = None) -> Tensor:
        """See `Formula.robustness`."""
        away = signal[..., :times, :] - signal.new_tensor(self.point)
        return self.radius - torch.linalg.vector_norm(away, dim=-1)

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return steps


@dataclass(frozen=True)
class Not(Formula):
    """The opposite."""

    part: Formula

    def robustness(self, signal: Tensor, temperature: float = 0.0, times: int | None = None) -> Tensor:
        """See `Formula.robustness`."""
        return -self.part.robustness(signal, temperature, times)

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return self.part.length(steps)


@dataclass(frozen=True)
class _Several(Formula):
    parts: tuple[Formula, ...]

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return min(part.length(steps) for part in self.parts)

    def _values(self, signal: Tensor, temperature: float, times: int | None) -> Tensor:
        count = self.length(signal.shape[-2]) if times is None else times
        return torch.stack([part.robustness(signal, temperature, count) for part in self.parts], -1)


@dataclass(frozen=True)
class And(_Several):
    """All of some."""

    def robustness(self, signal: Tensor, temperature: float = 0.0, times: int | None = None) -> Tensor:
        """See `Formula.robustness`."""
        return least(self._values(signal, temperature, times), temperature)


@dataclass(frozen=True)
class Or(_Several):
    """At least one of some."""

    def robustness(self, signal: Tensor, temperature: float = 0.0, times: int | None = None) -> Tensor:
        """See `Formula.robustness`."""
        return greatest(self._values(signal, temperature, times), temperature)


@dataclass(frozen=True)
class Window:
    """Times from ``first`` to ``last`` steps ahead, both included; None is the end of the signal."""

    first: int = 0
    last: int | None = None

    def until(self, time: int, steps: int) -> int:
        """Return the time after the last one that is ahead of a time in a signal of so many."""
        return steps if self.last is None else min(steps, time + self.last + 1)


@dataclass(frozen=True)
class _Timed(Formula):
    window: Window
    part: Formula

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return self.part.length(steps) - self.window.first

    def _ahead(self, signal: Tensor, temperature: float, times: int | None) -> list[Tensor]:
        """Return what lies within the window of each time."""
        steps, first = self.part.length(signal.shape[-2]), self.window.first
        count = steps - first if times is None else times
        values = self.part.robustness(signal, temperature, self.window.until(count - 1, steps))
        return [values[..., time + first : self.window.until(time, steps)] for time in range(count)]


@dataclass(frozen=True)
class Always(_Timed):
    """At all times of a window."""

    def robustness(self, signal: Tensor, temperature: float = 0.0, times: int | None = None) -> Tensor:
        """See `Formula.robustness`."""
        return torch.stack([least(one, temperature) for one in self._ahead(signal, temperature, times)], -1)


@dataclass(frozen=True)
class Eventually(_Timed):
    """At some time of a window."""

    def robustness(self, signal: Tensor, temperature: float = 0.0, times: int | None = None) -> Tensor:
        """See `Formula.robustness`."""
        return torch.stack([greatest(one, temperature) for one in self._ahead(signal, temperature, times)], -1)


@dataclass(frozen=True)
class Until(Formula):
    """At some time of a window ``second`` holds, and ``first`` at all times before, from now on."""

    window: Window
    first: Formula
    second: Formula

    def robustness(self, signal: Tensor, temperature: float = 0.0, times: int | None = None) -> Tensor:
        """See `Formula.robustness`."""
        steps = min(self.first.length(signal.shape[-2]), self.second.length(signal.shape[-2]))
        count = steps - self.window.first if times is None else times
        asked = self.window.until(count - 1, steps)
        first, second = (part.robustness(signal, temperature, asked) for part in (self.first, self.second))

        def at(time: int) -> Tensor:
            ahead = slice(time, self.window.until(time, steps))
            held = first[..., ahead]
            if temperature > 0:
                held = -temperature * torch.logcumsumexp(-held / temperature, -1)
            else:
                held = held.cummin(-1).values
            before = torch.cat([torch.full_like(held[..., :1], NOTHING), held[..., :-1]], -1)
            reached = least(torch.stack([second[..., ahead], before], -1), temperature)
            return greatest(reached[..., self.window.first :], temperature)

        return torch.stack([at(time) for time in range(count)], -1)

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return min(self.first.length(steps), self.second.length(steps)) - self.window.first


def least(values: Tensor, temperature: float) -> Tensor:
    """Return the minimum (...) of values (..., n), smooth at a positive temperature."""
    return -greatest(-values, temperature)


def greatest(values: Tensor, temperature: float) -> Tensor:
    """Return the maximum (...) of values (..., n), smooth at a positive temperature."""
    if temperature > 0:
        return temperature * torch.logsumexp(values / temperature, -1)
    return values.amax(-1)


def both(parts: Sequence[Formula]) -> Formula:
    """Return "and" of at least one formula."""
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def either(parts: Sequence[Formula]) -> Formula:
    """Return "or" of at least one formula."""
    return parts[0] if len(parts) == 1 else Or(tuple(parts))
