"""What policies of other libraries have in common."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.config import Config
from robopol.errors import CheckpointError
from robopol.policies.part import PolicySpec
from robopol.policies.plan_only import PlanOnlyPolicy, box_units, count, row_seeds
from robopol.policies.policy import Generators, Previous, fingerprint


class ForeignConfig(Config):
    """Which file of another library; it is never read from a policy folder.

    Attributes:
        kind: The library.
        algorithm: What trained it.
        path: The file.
    """

    kind: str
    algorithm: str
    path: str


class ForeignPolicy(PlanOnlyPolicy):
    """Plans one action at a time by another library, for one row after the other, on the CPU.

    Such libraries draw from torch's global generator: each proposal is made with that one seeded from the row's, and
    what it held before is put back.
    """

    config: ForeignConfig  # type: ignore[assignment]

    def __init__(self, config: ForeignConfig, spec: PolicySpec) -> None:
        """Take over what the loader found."""
        super().__init__(config, spec, box_units(spec))
        self.refusal = f"a policy of {config.kind} plans and nothing else: train it with {config.kind}"

    @property
    def rowwise(self) -> bool:
        """See `Policy.rowwise`."""
        return True

    @torch.no_grad()
    def plan(
        self,
        obs: Mapping[str, Tensor],
        n: int = 1,
        generator: Generators = None,
        previous: Sequence[Previous | None] | None = None,
    ) -> Tensor:
        """See `Policy.plan`. A window repeats its one action for the time before now."""
        inputs = self.histories(obs, generator)
        rows = count(inputs)
        seeds, actions = row_seeds(rows, n, generator), torch.empty(rows, n, self.spec.action_dim)
        for row in range(rows):
            one = {key: value[row].cpu().numpy() for key, value in inputs.items()}
            for index, seed in enumerate(seeds[row].tolist()):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    actions[row, index] = torch.as_tensor(self._action(one, n))
        return actions[:, :, None].repeat(1, 1, self.spec.horizon, 1).to(self.device)

    def fingerprint(self) -> bytes:
        """See `Policy.fingerprint`; the weights lie in the file."""
        with Path(self.config.path).expanduser().open("rb") as file:
            return fingerprint(self.config, self.spec, {}, hashlib.file_digest(file, "sha256").digest())

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: there are no weights of robopol's here.

        Raises:
            CheckpointError: Always.
        """
        raise CheckpointError(
            f"a policy of {self.config.kind} cannot be saved as a policy folder: its file runs code when it is loaded. "
            f"Keep {self.config.path}, and load it with trust=true"
        )

    @abstractmethod
    def _action(self, obs: Mapping[str, NDArray[Any]], n: int) -> NDArray[np.float32]:
        """Return an action (A,) in environment units.

        Args:
            obs: Key -> one history (To, ...).
            n: How many proposals are asked for; this is one of them.
        """
