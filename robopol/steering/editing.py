"""Small policies that are shown what another one proposes and say how it is changed."""

from collections.abc import Mapping

from torch import Tensor

from robopol.data.windows import newest
from robopol.policies import Policy

PROPOSAL = "proposal"
"""The observation under which an editor sees the actions that are proposed, (h A,)."""


def edited(editor: Policy, obs: Mapping[str, Tensor], chunks: Tensor, noise: Tensor, weight: float = 1.0) -> Tensor:
    """Return chunks with their edits, within the bounds of the editor's own contract.

    Args:
        editor: Who edits, from noise.
        obs: Histories, key -> (B, To, ...).
        chunks: (B, M, h, A), environment units.
        noise: Standard normal, (B, M, 1, h A).
        weight: Share of an edit that is added.

    Returns:
        (B, M, h, A).
    """
    shown = beside(obs, chunks)
    edits = editor.plan_from(shown, noise.flatten(0, 1)[:, None])[:, 0, 0]
    return chunks + weight * edits.view_as(chunks)


def beside(obs: Mapping[str, Tensor], chunks: Tensor) -> dict[str, Tensor]:
    """Return what an editor is shown of chunks (B, M, h, A): key -> (B M, 1, ...), the newest observation and them."""
    count = chunks.shape[1]
    shown = {key: rows.repeat_interleave(count, 0) for key, rows in newest(obs, 1).items()}
    return shown | {PROPOSAL: chunks.flatten(0, 1).flatten(1)[:, None]}
