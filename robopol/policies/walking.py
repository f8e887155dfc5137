"""What all policies share that walk a field from noise to data, whatever the data are: actions, or states."""

from abc import abstractmethod
from typing import Any

from robopol.config import parse
from robopol.policies.field import Field
from robopol.policies.policy import Policy
from robopol.policies.samplers import Sampler


class WalkingPolicy(Policy):
    """A policy with a field and a sampler, which can be exchanged.

    Attributes:
        config: Has a ``sampler``.
        field: What is trained.
        sampler: How it is walked.
    """

    config: Any
    field: Field
    sampler: Sampler[Any]

    @property
    @abstractmethod
    def walked(self) -> Field:
        """The field that is walked when acting: the trained one, pulled towards what is asked for."""

    def resample(self, sampler: Any) -> None:
        """Walk with another sampler from now on; the weights stay.

        Args:
            sampler: A `robopol.policies.samplers.SamplerConfig`.

        Raises:
            ConfigError: If the field cannot be walked so.
        """
        config = parse(type(self.config), self.config.tree() | {"sampler": sampler.tree()})
        self.sampler = self._walker(sampler)
        self.config = config

    def _walker(self, sampler: Any) -> Sampler[Any]:
        """Return what walks, and refuse an impossible walk now, not when the policy first acts; see `resample`."""
        built: Sampler[Any] = sampler.build()
        built.table(self.field)
        return built
