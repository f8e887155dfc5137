"""Several processes that train one policy: each computes the gradients of its share of every batch.

They are started by ``torchrun``, which tells each its number. Every process loads the data and holds the weights, the
leader's to begin with; it draws the same batch as the others, takes its own rows of it, and averages every gradient of
what its algorithm trains with theirs as soon as it is there. So all take the same step, the one that one process would
take of the whole batch. Only the leader writes.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from robopol.algos import Algorithm
from robopol.errors import ConfigError


class Team:
    """The processes that train together; by itself, one.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """Be one of some; `join` says which."""
        self.rank, self.size = rank, size

    @property
    def leader(self) -> bool:
        """Whether this is the process that logs, evaluates and saves."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Check that batches can be shared.

        Raises:
            ConfigError: If they cannot be shared evenly.
        """
        if batch_size % self.size:
            raise ConfigError(f"{self.size} processes cannot share a batch of {batch_size} evenly: set batch_size")

    def share(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return this process's rows of a batch: every ``size``-th one, so that each gets some of every source."""
        if self.size == 1:
            return batch
        return {key: self.share(v) if isinstance(v, dict) else v[self.rank :: self.size] for key, v in batch.items()}

    def unite(self, algo: Algorithm) -> None:
        """Let an algorithm, which is as the others', begin as the leader's, and take every step together with them.

        Args:
            algo: From here on every gradient of what it trains is averaged whenever it is computed.
        """
        if self.size == 1:
            return
        state = {name: value.detach().clone().contiguous() for name, value in algo.state().items()}
        for name in sorted(state):
            self._spread(state[name])
        algo.load_state(state)
        weights = [[part] if isinstance(part, Tensor) else part.parameters() for part in algo.trained.values()]
        for weight in {id(weight): weight for several in weights for weight in several}.values():
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(self._average)
        algo.over_all = self._over_all

    def mean(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the means of some figures, of the same names everywhere, over the processes."""
        if self.size == 1 or not metrics:
            return dict(metrics)
        figures = torch.tensor(list(metrics.values()), dtype=torch.float64)
        dist.all_reduce(figures)
        return dict(zip(metrics, (figures / self.size).tolist(), strict=True))

    def agree(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Return what the leader says, of JSON types."""
        if self.size == 1:
            return tree
        said = torch.tensor(list(json.dumps(tree).encode()), dtype=torch.uint8)
        length = torch.tensor([len(said)])
        dist.broadcast(length, 0)
        heard = said if self.leader else torch.zeros(int(length), dtype=torch.uint8)
        dist.broadcast(heard, 0)
        agreed: dict[str, Any] = json.loads(bytes(heard.tolist()))
        return agreed

    def wait(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            dist.barrier()

    def _average(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._sum(parameter.grad)
        parameter.grad /= self.size

    def _over_all(self, figure: Tensor) -> Tensor:
        found = figure.clone()
        self._sum(found)
        return found / self.size

    def _sum(self, value: Tensor) -> None:
        """Add what the others hold to a tensor."""
        dist.all_reduce(value)

    def _spread(self, value: Tensor) -> None:
        """Fill a tensor with what the leader holds."""
        dist.broadcast(value, 0)


@contextmanager
def join() -> Iterator[Team]:
    """Join the processes that ``torchrun`` started beside this one; alone, if it started none.

    Yields:
        The team. Leaving the block leaves it.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local < torch.cuda.device_count():  # of the processes of a run on the CPU there may be more
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")  # by where a tensor lies
    try:
        yield Team(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
