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
    def robustness(self, signal: Tensor, temperature: float = 0.0) -> Tensor:
        """Return how robustly it holds at each time.

        Args:
            signal: (..., L, D).
            temperature: 0 is exact; see the module's text.

        Returns:
            (..., ``length(L)``).
        """

    @abstractmethod
    def length(self, steps: int) -> int:
        """Return at how many times it can be judged in a signal of so many; not positive if at none."""


@dataclass(frozen=True)
class Linear(Formula):
    """The predicate ``weights . signal + constant >= 0``; (D,) weights."""

    weights: tuple[float, ...]
    constant: float

    def robustness(self, signal: Tensor, temperature: float = 0.0) -> Tensor:
        """See `Formula.robustness`."""
        return (signal * signal.new_tensor(self.weights)).sum(-1) + self.constant

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return steps


@dataclass(frozen=True)
class Near(Formula):
    """The predicate that the signal is within a radius of a point (D,)."""

    point: tuple[float, ...]
    radius: float

    def robustness(self, signal: Tensor, temperature: float = 0.0) -> Tensor:
        """See `Formula.robustness`."""
        return self.radius - torch.linalg.vector_norm(signal - signal.new_tensor(self.point), dim=-1)

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return steps


@dataclass(frozen=True)
class Not(Formula):
    """The opposite."""

    part: Formula

    def robustness(self, signal: Tensor, temperature: float = 0.0) -> Tensor:
        """See `Formula.robustness`."""
        return -self.part.robustness(signal, temperature)

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return self.part.length(steps)


@dataclass(frozen=True)
class _Several(Formula):
    parts: tuple[Formula, ...]

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return min(part.length(steps) for part in self.parts)

    def _values(self, signal: Tensor, temperature: float) -> Tensor:
        length = self.length(signal.shape[-2])
        return torch.stack([part.robustness(signal, temperature)[..., :length] for part in self.parts], -1)


@dataclass(frozen=True)
class And(_Several):
    """All of some."""

    def robustness(self, signal: Tensor, temperature: float = 0.0) -> Tensor:
        """See `Formula.robustness`."""
        return least(self._values(signal, temperature), temperature)


@dataclass(frozen=True)
class Or(_Several):
    """At least one of some."""

    def robustness(self, signal: Tensor, temperature: float = 0.0) -> Tensor:
        """See `Formula.robustness`."""
        return greatest(self._values(signal, temperature), temperature)


@dataclass(frozen=True)
class Window:
    """Times from ``first`` to ``last`` steps ahead, both included; None is the end of the signal."""

    first: int = 0
    last: int | None = None

    def of(self, values: Tensor, beyond: float) -> Tensor:
        """Return what lies from each time on up to the window's end, (..., L - first, last + 1) of (..., L).

        Args:
            values: (..., L).
            beyond: What stands for values after the end.
        """
        steps = values.shape[-1]
        last = steps - 1 if self.last is None else min(self.last, steps - 1)
        padded = torch.cat([values, values.new_full((*values.shape[:-1], last), beyond)], -1)
        return padded.unfold(-1, last + 1, 1)[..., : steps - self.first, :]

    def greatest(self, values: Tensor, temperature: float) -> Tensor:
        """Return the maximum of values (..., L) within the window of each time, (..., L - first); see `greatest`."""
        if self.last is not None and self.last < values.shape[-1] - 1:
            return greatest(self.of(values, -NOTHING)[..., self.first :], temperature)
        back = values.flip(-1)  # up to the end, one pass from there does
        smooth = temperature > 0
        found = temperature * torch.logcumsumexp(back / temperature, -1) if smooth else back.cummax(-1).values
        return found.flip(-1)[..., self.first :]


@dataclass(frozen=True)
class _Timed(Formula):
    window: Window
    part: Formula

    def length(self, steps: int) -> int:
        """See `Formula.length`."""
        return self.part.length(steps) - self.window.first


@dataclass(frozen=True)
class Always(_Timed):
    """At all times of a window."""

    def robustness(self, signal: Tensor, temperature: float = 0.0) -> Tensor:
        """See `Formula.robustness`."""
        return -self.window.greatest(-self.part.robustness(signal, temperature), temperature)


@dataclass(frozen=True)
class Eventually(_Timed):
    """At some time of a window."""

    def robustness(self, signal: Tensor, temperature: float = 0.0) -> Tensor:
        """See `Formula.robustness`."""
        return self.window.greatest(self.part.robustness(signal, temperature), temperature)


@dataclass(frozen=True)
class Until(Formula):
    """At some time of a window ``second`` holds, and ``first`` at all times before, from now on."""

    window: Window
    first: Formula
    second: Formula

    def robustness(self, signal: Tensor, temperature: float = 0.0) -> Tensor:
        """See `Formula.robustness`."""
        length = min(self.first.length(signal.shape[-2]), self.second.length(signal.shape[-2]))
        first = self.window.of(self.first.robustness(signal, temperature)[..., :length], NOTHING)
        second = self.window.of(self.second.robustness(signal, temperature)[..., :length], -NOTHING)
        if temperature > 0:
            held = -temperature * torch.logcumsumexp(-first / temperature, -1)
        else:
            held = first.cummin(-1).values
        before = torch.cat([torch.full_like(held[..., :1], NOTHING), held[..., :-1]], -1)
        reached = least(torch.stack([second, before], -1), temperature)
        return greatest(reached[..., self.window.first :], temperature)

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
