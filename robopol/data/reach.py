"""What was demonstrated and cannot be planned, because of how actions are scaled."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from robopol.data.normalizer import Normalizer
from robopol.errors import DataWarning

ROUNDING = 1e-5
"""Scaled actions may lie beyond [-1, 1] by so much."""


def warn_of_unplanned(
    normalizer: Normalizer, action: Tensor, names: Sequence[str], bounded: bool, what: str = "action"
) -> None:
    """Warn once of actions that a policy will never plan, entry by entry, with their numbers.

    A scale that was fitted to quantiles sends what lies beyond them beyond [-1, 1], and holds an entry still that
    varies in fewer rows than that.

    Args:
        normalizer: The policy's, fitted.
        action: What it was fitted to, (N, A).
        names: Of the entries.
        bounded: Whether normalised plans stay within [-1, 1].
        what: What they are, if no actions.
    """
    if normalizer.mode == "minmax":  # which leaves nothing out
        return
    scaled = normalizer.normalize(action)
    still = (normalizer.unscale == 0).to(action.device)
    moved = still & ((action - normalizer.offset.to(action)).abs() > ROUNDING)
    beyond = (scaled.abs() > 1 + ROUNDING) & ~still & torch.tensor(bounded, device=action.device)
    rows, said = len(action), []
    for i, name in enumerate(names):
        held, cut = int(moved[:, i].sum()), int(beyond[:, i].sum())
        if held:
            said.append(f"{name}, always planned as {normalizer.offset[i].item():.4g}, differs in {held} of {rows}")
        if cut:
            reach = scaled[:, i].abs().max().item()
            said.append(f"{name} in {cut} of {rows} ({cut / rows:.2%}), as far as {reach:.3g}")
    if said:
        warnings.warn(
            f"scaled by {normalizer.mode}, some demonstrated {what}s can be trained on and not be planned: "
            f"{'; '.join(said)}. To plan them, set the policy's {what} normalization to minmax; where only a sampler "
            "clips plans to [-1, 1], policy.sampler.clip=never is enough",
            DataWarning,
            stacklevel=3,
        )
