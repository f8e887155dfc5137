"""What may differ between two robots or two days: the parameters of domain randomisation."""

from typing import NamedTuple

import numpy as np
from pydantic import model_validator

from robopol.config import Config

MAX_LATENCY = 10
"""Longest action latency, control steps."""


class DomainDraw(NamedTuple):
    """The domain of one episode: the fields of `Domain`, each one number."""

    mass: float
    friction: float
    latency: int
    observation_noise: float


class Domain(Config):
    """Each parameter is a number, or a range [low, high] from which every reset draws uniformly."""

    mass: float | tuple[float, float] = 1.0
    """Scale of the objects' masses, above 0."""
    friction: float | tuple[float, float] = 1.0
    """Scale of the friction coefficients of the objects and the table, at least 0."""
    latency: int | tuple[int, int] = 0
    """Control steps by which an action is late, 0 to `MAX_LATENCY`; until the first arrives the arm stands
    still."""
    observation_noise: float | tuple[float, float] = 0.0
    """Standard deviation of the Gaussian noise on every entry of the state (m, rad, or of the opening)."""

    @model_validator(mode="after")
    def _check(self) -> "Domain":
        limits = {
            "mass": (1e-3, 1e3),
            "friction": (0.0, 1e3),
            "latency": (0, MAX_LATENCY),
            "observation_noise": (0.0, 10.0),
        }
        for name, (low, high) in limits.items():
            first, last = self.bounds(name)
            if not low <= first <= last <= high:
                raise ValueError(f"{name} must satisfy {low} <= low <= high <= {high}, got [{first}, {last}]")
        return self

    def bounds(self, name: str) -> tuple[float, float]:
        """Return the range of one parameter; both ends are equal for a fixed number."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value, value)

    def draw(self, rng: np.random.Generator) -> DomainDraw:
        """Draw the domain of one episode; a fixed parameter consumes no random number."""

        def uniform(name: str) -> float:
            low, high = self.bounds(name)
            return float(low) if low == high else float(rng.uniform(low, high))

        low, high = self.bounds("latency")
        latency = int(low) if low == high else int(rng.integers(int(low), int(high), endpoint=True))
        return DomainDraw(uniform("mass"), uniform("friction"), latency, uniform("observation_noise"))
