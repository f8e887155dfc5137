"""What every algorithm is: what it trains, one update, and a state that can be saved."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from robopol.config import Config
from robopol.policies import Needs, Part, Policy


class AlgorithmConfig(Config):
    """What all algorithms are told.

    A ``build`` takes what is trained by the name of its group (``policy=``, ``model=``), then ``total_updates`` and
    ``runtime``.
    """

    trains: ClassVar[tuple[str, ...]] = ("policy",)
    """Groups of which it trains one part each."""

    may_train: ClassVar[tuple[str, ...]] = ()
    """Groups of which it trains a part if one was named."""


class Algorithm(ABC):
    """Losses and an update; it owns no loop, no data and no files."""

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What the update reads of a batch besides the usual."""

    @abstractmethod
    def update(self, batch: Mapping[str, Any], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one step.

        Args:
            batch: See `robopol.data.Windows.gather`; the longest history and the longest chunk that a trained part
                asks for.
            step: Updates done before this one; schedules are functions of it.
            generator: Source of the update's own randomness, on the device of what is trained.

        Returns:
            Scalars to log, as tensors so that nothing waits for the device; ``train/loss`` among them.
        """

    @abstractmethod
    def deployed(self) -> Policy | None:
        """Return the policy to evaluate, e.g. the averaged one; None if no policy is trained."""

    def parts(self) -> dict[str, Part]:
        """Return what is saved by its group; the deployed policy."""
        policy = self.deployed()
        return {} if policy is None else {"policy": policy}

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return everything that further updates depend on, as named tensors."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""


class Explored(NamedTuple):
    """What was chosen to be tried.

    Attributes:
        action: (n, h, A) in environment units: the next h actions of each episode, executed without choosing again
            unless the episode ends before.
        trace: Name -> (n, ...), what the algorithm wants back together with what came of each choice.
    """

    action: Tensor
    trace: Mapping[str, Tensor] = MappingProxyType({})


@runtime_checkable
class Explores(Protocol):
    """An algorithm that chooses actions to learn from."""

    def explore(self, obs: Mapping[str, Tensor], generator: torch.Generator) -> Explored:
        """Choose the next actions of some running episodes.

        Args:
            obs: Their histories, key -> (n, To, ...), oldest first, environment units, on the device of what is
                trained. Before an episode is To steps old, its first observation fills them. To is the longest
                history that a trained part asks for.
            generator: Source of all that is random in the choice, on the same device.

        Returns:
            What is tried. h is the same in every call.
        """


@runtime_checkable
class WarmsUp(Explores, Protocol):
    """One that acts in the warm-up, too, instead of uniformly random actions."""

    def warm_up(self, obs: Mapping[str, Tensor], generator: torch.Generator) -> Explored:
        """Choose the next actions before anything was learned; see `Explores.explore`."""


def by_owner(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Split named tensors at the first dot of their names: owner -> rest of the name -> tensor."""
    owners: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        owner, _, rest = name.partition(".")
        owners.setdefault(owner, {})[rest] = value
    return owners


def owned(owner: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put an owner's name before every name; what `by_owner` undoes."""
    return {f"{owner}.{name}": value for name, value in state.items()}
