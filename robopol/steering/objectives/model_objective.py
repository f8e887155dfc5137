"""What objectives share that ask a learned model about the actions from now on."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

from torch import Tensor

from robopol.checkpoint import Described, describe, restore
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.policies import Policy
from robopol.steering.objectives.objective import Objective, check_actions

M = TypeVar("M", bound=Model)


class ModelObjective(Objective, Generic[M]):
    """Scores plans by a model.

    Attributes:
        model: The model; its weights are saved and moved with the objective.
        now: To - 1, the step of a window that belongs to the newest observation.
    """

    def __init__(self, config: Any, model: M, n_obs_steps: int) -> None:
        """Take over a model.

        Args:
            config: The objective's config, the model described in it.
            model: The model.
            n_obs_steps: To, of the policy whose plans are scored.
        """
        super().__init__(config)
        self.model: M = model.requires_grad_(False)
        self.now = n_obs_steps - 1
        self.obs_shapes = dict(model.spec.obs_shapes)

    def asked(self, obs: Mapping[str, Tensor], windows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return what the model looks at: histories, key -> (B, To, ...), and the next h actions, (B, K, h, A)."""
        spec = self.model.spec
        seen = {key: obs[key][:, -spec.n_obs_steps :] for key in spec.obs_shapes}
        return seen, windows[:, :, self.now : self.now + spec.chunk]


def fitting(named: str | Described, kind: type[M], policy: Policy) -> tuple[M, Described]:
    """Return the model that a config names, and what it is.

    Args:
        named: See `robopol.checkpoint.PartOf`.
        kind: What it must be.
        policy: The policy whose plans it is to judge.

    Raises:
        CheckpointError: If it cannot be loaded.
        ConfigError: If it is another kind of model, or was made for other actions.
    """
    model = restore(named, "model", policy.device)
    if not isinstance(model, kind):
        came = cast(Model, model).config.tree()["kind"]
        raise ConfigError(f"a {kind.__name__} is needed, and {named} holds a model of kind {came}")
    check_actions(policy.spec, model.spec, f"the {model.config.tree()['kind']} model")
    return model, describe(model)
