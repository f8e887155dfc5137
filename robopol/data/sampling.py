"""Which windows a training step sees: a function of (seed, step) alone, so that a killed run resumes.

How windows are drawn is a registered kind (group ``sampling``), chosen for each source of data.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from robopol.config import Config
from robopol.data.draws import batch_indices

if TYPE_CHECKING:
    from robopol.data.episodes import Episodes
    from robopol.data.windows import Batch, Windows


class Sampling(ABC):
    """A distribution over the windows of one source.

    Attributes:
        windows: What is drawn from.
    """

    def __init__(self, windows: "Windows") -> None:
        """Draw from some windows."""
        self.windows = windows

    @abstractmethod
    def batch(self, step: int, batch_size: int, seed: int) -> "Batch":
        """Return the batch of one training step, a function of the arguments alone.

        Args:
            step: Training step, from 0.
            batch_size: B.
            seed: Of the source's draws.

        Returns:
            See `robopol.data.Windows.gather`.
        """


class SamplingConfig(Config):
    """What all samplings are told."""

    def observed(self, episodes: "Episodes") -> "Episodes":
        """Return the episodes with every observation that batches will hold; normalisers are fitted to these."""
        return episodes

    def check(self, entries: Collection[str]) -> None:
        """Refuse batches that would say what is not true of what is drawn; by default every batch can be served.

        Args:
            entries: What a batch holds besides the usual, `robopol.data.Windows.entries`.

        Raises:
            ConfigError: If one of these has no meaning here.
        """

    def held_out(self) -> "SamplingConfig":
        """Return how windows are drawn in which a loss is measured and nothing learned; by default, as others."""
        return self

    @abstractmethod
    def build(self, windows: "Windows") -> Sampling:
        """Return the sampling of some windows, cut from episodes that `observed` returned.

        Raises:
            ConfigError: If `check` refuses what their batches hold.
        """


class UniformConfig(SamplingConfig):
    """Every window exactly once an epoch, in an order that is drawn anew for each."""

    kind: Literal["uniform"] = "uniform"

    def build(self, windows: "Windows") -> "Uniform":
        """See `SamplingConfig.build`."""
        return Uniform(windows)


class Uniform(Sampling):
    """See `UniformConfig`."""

    def batch(self, step: int, batch_size: int, seed: int) -> "Batch":
        """See `Sampling.batch`."""
        return self.windows.gather(batch_indices(len(self.windows), step, batch_size, seed))
