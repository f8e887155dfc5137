"""What every model is: something learned about observations and actions, both in environment units."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Generator, Tensor

from robopol.errors import ShapeError
from robopol.policies.part import Part, PartConfig, PolicySpec


class ModelConfig(PartConfig):
    """What all models are told, beside what all parts are.

    Attributes:
        n_obs_steps: Observations that are looked at, To.
        n_action_steps: Actions from now on that are looked at, h.
    """

    n_obs_steps: int = Field(1, ge=1)
    n_action_steps: int = Field(1, ge=1)

    group: ClassVar[str] = "model"

    @property
    def horizon(self) -> int:
        """Tp = To - 1 + h, the actions of a window of training data."""
        return self.n_obs_steps - 1 + self.n_action_steps

    @abstractmethod
    def build(self, spec: PolicySpec) -> "Model":
        """Return the model, its weights untrained.

        Args:
            spec: The contract with the world; its ``chunk`` is h.

        Raises:
            ConfigError: If the parts do not fit each other.
        """


class Model(Part):
    """A model.

    A batch that it is trained on has observations (B, To, ...) and windows of actions (B, Tp, A) as a policy's has; the
    actions from now on are the last h of a window.

    In training mode an encoder may disturb the observations at random.
    """

    config: ModelConfig

    def encode(self, obs: Mapping[str, Tensor], generator: Generator | None = None) -> Tensor:
        """Return the features of histories side by side, (B, To * D).

        Args:
            obs: Key -> (B, To, ...), oldest first, environment units.
            generator: Source of the augmentation, which there is in training mode only.

        Raises:
            ShapeError: If an observation is missing or shaped wrongly.
        """
        seen: Tensor = self.observation(obs, self.spec.n_obs_steps, augment=self.training, generator=generator)
        return seen.flatten(1)

    def beside(self, seen: Tensor, actions: Tensor) -> Tensor:
        """Put normalised actions beside what was seen.

        Args:
            seen: Features, (B, C).
            actions: (B, h, A), or several proposals for each row, (B, n, h, A), environment units.

        Returns:
            (B, C + h * A) or (B, n, C + h * A).

        Raises:
            ShapeError: If the actions are shaped wrongly.
        """
        rows, wanted = len(seen), (self.spec.chunk, self.spec.action_dim)
        if tuple(actions.shape[-2:]) != wanted or actions.dim() not in (3, 4) or len(actions) != rows:
            raise ShapeError(
                f"the actions have shape {tuple(actions.shape)}; {rows} observations go with ({rows}, {wanted[0]}, "
                f"{wanted[1]}) or ({rows}, n, {wanted[0]}, {wanted[1]}): rows, proposals, next actions, entries"
            )
        chunk = self.action_normalizer.normalize(actions).flatten(-2)
        if chunk.dim() == 3:
            seen = seen[:, None].expand(-1, chunk.shape[1], -1)
        return torch.cat([seen, chunk], -1)

    def actions(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the actions from now on of a batch that it is trained on, (B, h, A)."""
        actions: Tensor = batch["action"][:, self.spec.n_obs_steps - 1 :]
        return actions
