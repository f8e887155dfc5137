"""Change plans that violate something, and only those: the RefineNet of pSTL-Diffusion (Meng & Fan 2024).

What is right already is not touched; what is not goes through a small network that was trained for this one wish
(`robopol train algo=repair`). It costs one call of that network, where guidance asks for a gradient at every level.
"""

from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.checkpoint import PartOf, describe, restore
from robopol.config import OneOf
from robopol.errors import ConfigError
from robopol.policies import Policy
from robopol.policies.deterministic import DeterministicPolicy
from robopol.steering.editing import PROPOSAL, beside
from robopol.steering.objectives import Objective
from robopol.steering.steering import Planning, Steering, SteeringConfig


class LearnedRepairConfig(SteeringConfig):
    """Edit the proposals whose score is negative.

    The published network also sees what the samples beside a sample have in common; this one sees its own proposal
    only, so that a plan does not depend on how many others are drawn.

    Attributes:
        editor: A deterministic policy that sees the proposed actions and says what is added to them.
        objective: What is to be at least 0, such as the robustness of a formula.
        weight: Share of an edit that is added; 0 is the base policy.
    """

    kind: Literal["learned_repair"] = "learned_repair"
    editor: Annotated[Any, PartOf("policy")]
    objective: Annotated[Any, OneOf("objective")]
    weight: float = Bound(1.0, ge=0, le=1)

    def build(self, policy: Policy) -> "LearnedRepair":
        """See `SteeringConfig.build`."""
        editor = cast(Policy, restore(self.editor, "policy"))
        return LearnedRepair(editor, self.objective.build(policy), policy, self.weight)


class LearnedRepair(Steering):
    """See `LearnedRepairConfig`.

    Attributes:
        editor: Who edits.
        objective: What is to be at least 0.
    """

    config: LearnedRepairConfig

    def __init__(self, editor: Policy, objective: Objective, policy: Policy, weight: float = 1.0) -> None:
        """Repair the proposals of a policy.

        Args:
            editor: See `LearnedRepairConfig`.
            objective: The same.
            policy: The base policy.
            weight: Share of an edit that is added.

        Raises:
            ConfigError: If they were not made for each other.
        """
        super().__init__(LearnedRepairConfig(editor=describe(editor), objective=objective.config, weight=weight))
        size = policy.spec.chunk * policy.spec.action_dim
        if not isinstance(editor, DeterministicPolicy):
            raise ConfigError(f"plans are repaired by a deterministic policy, not a {editor.config.tree()['kind']} one")
        if editor.spec.action_dim != size or editor.spec.obs_shapes.get(PROPOSAL) != (size,):
            raise ConfigError(
                f"the editor changes {editor.spec.action_dim} numbers of a plan, and the policy's have {size} from now "
                "on: they were not made for each other"
            )
        self.editor, self.objective, self.first = editor, objective, policy.spec.n_obs_steps - 1
        own = {key: shape for key, shape in editor.spec.obs_shapes.items() if key != PROPOSAL}
        self.obs_shapes = own | objective.obs_shapes
        low, high = torch.tensor([policy.spec.action_low, policy.spec.action_high])
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def output(self, windows: Tensor, planning: Planning) -> Tensor:
        """See `Steering.output`."""
        if self.config.weight == 0:
            return windows
        violated = self.objective.score(planning.obs, windows) < 0
        planning.note("learned_repair/violated", violated.float())
        result = torch.where(violated[..., None, None], self.changed(planning.obs, windows), windows)
        planning.note("learned_repair/left", (self.objective.score(planning.obs, result) < 0).float())
        return result

    def changed(self, obs: Any, windows: Tensor) -> Tensor:
        """Return windows (B, M, Tp, A) with their edits, within the bounds of the actions; differentiable."""
        chunks = windows[..., self.first :, :]
        edits = self.editor(beside(obs, chunks))[:, 0].view_as(chunks)
        low, high = cast(Tensor, self.low), cast(Tensor, self.high)
        chunks = torch.minimum(torch.maximum(chunks + self.config.weight * edits, low), high)
        return torch.cat([windows[..., : self.first, :], chunks], -2)
