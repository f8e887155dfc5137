"""Proposals, edited a little, and the best of them: what EXPO learns (Dong et al. 2025, arXiv 2507.07986).

A frozen policy proposes; a small actor, shown a proposal, says how to change it within a box; a critic decides between
each proposal and its edit, and among all. Without edits it is best-of-N by a critic of chunks, as in Q-chunking.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.checkpoint import PartOf, describe, restore
from robopol.data.windows import newest
from robopol.errors import ConfigError
from robopol.models.q import QModel
from robopol.policies import Policy
from robopol.policies.squashed_gaussian import SquashedGaussianPolicy
from robopol.steering.editing import PROPOSAL, edited
from robopol.steering.steering import Planning, Steering, SteeringConfig


class LearnedEditConfig(SteeringConfig):
    """Take the best of n proposals and of their edits.

    Attributes:
        editor: A squashed Gaussian that sees the proposed actions and says what is added to them.
        critic: What judges; the least of its heads.
        n: Proposals.
        weight: Share of an edit that is added; 0 edits nothing, and with n = 1 is the base policy.
    """

    kind: Literal["learned_edit"] = "learned_edit"
    editor: Annotated[Any, PartOf("policy")]
    critic: Annotated[Any, PartOf("model")]
    n: int = Bound(8, ge=1)
    weight: float = Bound(1.0, ge=0, le=1)

    def build(self, policy: Policy) -> "LearnedEdit":
        """See `SteeringConfig.build`."""
        editor, critic = restore(self.editor, "policy"), restore(self.critic, "model")
        return LearnedEdit(cast(Policy, editor), cast(QModel, critic), policy, self.n, self.weight)


class LearnedEdit(Steering):
    """See `LearnedEditConfig`.

    Attributes:
        editor: Who edits.
        critic: What judges.
    """

    config: LearnedEditConfig

    def __init__(self, editor: Policy, critic: QModel, policy: Policy, n: int, weight: float = 1.0) -> None:
        """Edit and choose the proposals of a policy.

        Args:
            editor: See `LearnedEditConfig`.
            critic: The same.
            policy: The base policy.
            n: Proposals.
            weight: Share of an edit that is added.

        Raises:
            ConfigError: If they were not made for each other.
        """
        super().__init__(LearnedEditConfig(editor=describe(editor), critic=describe(critic), n=n, weight=weight))
        if not isinstance(editor, SquashedGaussianPolicy) or not isinstance(critic, QModel):
            raise ConfigError("proposals are edited by a squashed_gaussian policy and judged by a q model")
        self.first, self.steps = policy.spec.n_obs_steps - 1, critic.spec.chunk
        size = self.steps * policy.spec.action_dim
        if editor.spec.action_dim != size or editor.spec.obs_shapes.get(PROPOSAL) != (size,):
            raise ConfigError(
                f"the editor changes {editor.spec.action_dim} numbers of a proposal, and the critic judges {size}: "
                "they were not made for each other"
            )
        if self.steps > policy.spec.chunk or critic.spec.n_obs_steps > policy.spec.n_obs_steps:
            raise ConfigError("the critic looks at more observations or actions than the policy does")
        self.editor, self.critic, self.proposals = editor, critic, n
        self.obs_shapes = dict(critic.spec.obs_shapes)
        self._low, self._high = torch.tensor([policy.spec.action_low, policy.spec.action_high])

    def output(self, windows: Tensor, planning: Planning) -> Tensor:
        """See `Steering.output`; an edit takes the place of its proposal where it is judged better."""
        if self.config.weight == 0:
            return windows
        noise = planning.normal(windows.shape[1], 1, self.editor.spec.action_dim)
        chunks = self._chunks(windows)
        edits = edited(self.editor, planning.obs, self._within(chunks), noise, self.config.weight)
        scores = self.score(planning.obs, torch.cat([chunks, edits], 1))  # (B, 2 M)
        kept, changed = scores.split(windows.shape[1], 1)
        better = changed > kept
        planning.note("learned_edit/share", better.float())
        result = windows.clone()
        self._chunks(result).copy_(torch.where(better[..., None, None], edits, chunks))
        return result

    def select(self, windows: Tensor, planning: Planning) -> Tensor:
        """See `Steering.select`; the one that is judged best."""
        scores = self.score(planning.obs, self._chunks(windows.flatten(1, 2)))
        return scores.unflatten(1, windows.shape[1:3]).argmax(-1)

    def score(self, obs: Mapping[str, Tensor], chunks: Tensor) -> Tensor:
        """Return what the least hopeful head says of chunks (B, M, h, A), clipped to their bounds, (B, M)."""
        return self.critic.q(newest(obs, self.critic.spec.n_obs_steps), self._within(chunks)).amin(0)

    def _within(self, chunks: Tensor) -> Tensor:
        """Return actions (..., A) clipped to their bounds: as they are edited, judged and executed."""
        return torch.minimum(torch.maximum(chunks, self._low.to(chunks.device)), self._high.to(chunks.device))

    def _chunks(self, windows: Tensor) -> Tensor:
        """Return the actions (..., h, A) of windows (..., Tp, A) that are judged, a view."""
        return windows[..., self.first : self.first + self.steps, :]
