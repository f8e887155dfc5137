"""What every algorithm is: what it trains, one update, and a state that can be saved."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from robopol.config import Config
from robopol.policies import Needs, Part, Policy

V = TypeVar("V")


class Remembers(Protocol):
    """What has a state and is no module, e.g. an optimiser."""

    def state(self) -> dict[str, Tensor]:
        """Return everything that it will depend on, as named tensors."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""


Trained: TypeAlias = nn.Module | Tensor
"""A module, or one weight by itself."""


def _alone(figure: Tensor) -> Tensor:
    return figure


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
    """Losses and an update; it owns no loop, no data and no files.

    What is trained is in evaluation mode but while its loss is computed; see `robopol.algos.learning.Learning`.

    Attributes:
        over_all: A figure of this process's rows of a batch -> its mean over all processes that train together
            (`robopol.training.team`), for losses that depend on more of a batch than a mean. By itself, the figure.
    """

    over_all: Callable[[Tensor], Tensor] = staticmethod(_alone)

    @property
    @abstractmethod
    def trained(self) -> dict[str, Trained]:
        """All that its optimisers move, by the name under which its state is saved.

        The gradients of whatever is named here, and of nothing else, are averaged over processes that train together.
        """

    @property
    @abstractmethod
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """What else further updates depend on, by the same kind of name: optimisers, averages, targets."""

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

    def state(self) -> dict[str, Tensor]:
        """Return everything that further updates depend on, as named tensors."""
        found: dict[str, Tensor] = {}
        for owner, part in (self.trained | self.beside).items():
            if isinstance(part, Tensor):
                found[owner] = part.detach()
            else:
                found |= owned(owner, part.state_dict() if isinstance(part, nn.Module) else part.state())
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for owner, part in (self.trained | self.beside).items():
            if isinstance(part, Tensor):
                with torch.no_grad():
                    part.copy_(state[owner])
                continue
            start = f"{owner}."
            own = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            if isinstance(part, nn.Module):
                part.load_state_dict(own)
            else:
                part.load_state(own)


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


def owned(owner: str, state: Mapping[str, V]) -> dict[str, V]:
    """Put an owner's name before every name; what `by_owner` undoes."""
    return {f"{owner}.{name}": value for name, value in state.items()}
