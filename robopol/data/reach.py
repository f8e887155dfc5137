"""What was demonstrated and cannot be planned, because of how actions are scaled."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from robopol.data.normalizer import SMALLEST_RANGE, Normalizer
from robopol.errors import DataWarning

ROUNDING = 1e-5
"""Actions may lie beyond the ends of their scale by so much of it, and move by so much of their own range."""
STILL = 1e-5
"""An entry that moves by less, in its unit, stands still: simulated arms waver by so much."""


def warn_of_unplanned(
    normalizer: Normalizer, action: Tensor, names: Sequence[str], bounded: bool, what: str = "action"
) -> None:
    """Warn once of actions that a policy will never plan, entry by entry, with their numbers.

    A scale that was fitted to quantiles sends what lies beyond them beyond [-1, 1], and holds an entry still that
    varies in fewer rows than that; any that is fitted to two ends holds one still whose ends are nearer than
    `SMALLEST_RANGE`.

    Args:
        normalizer: The policy's, fitted.
        action: What it was fitted to, (N, A).
        names: Of the entries.
        bounded: Whether normalised plans stay within [-1, 1].
        what: What they are, if no actions.
    """
    scaled, offset = normalizer.normalize(action), normalizer.offset.to(action)
    still = (normalizer.unscale == 0).to(action.device)
    rounded = 4 * torch.finfo(torch.float32).eps * offset.abs()  # a constant may differ by its last bits
    least = rounded.maximum(ROUNDING * (action.amax(0) - action.amin(0))).clamp(min=STILL)
    moved = still & ((action - offset).abs() > least)
    beyond = (scaled.abs() > 1 + ROUNDING) & ~still & torch.tensor(bounded, device=action.device)
    rows, said = len(action), []
    for i, name in enumerate(names):
        held, cut = int(moved[:, i].sum()), int(beyond[:, i].sum())
        if held:
            said.append(f"{name}, always planned as {offset[i].item():.4g}, differs in {held} of {rows}")
        if cut:
            reach = scaled[:, i].abs().max().item()
            said.append(f"{name} in {cut} of {rows} ({cut / rows:.2%}), as far as {reach:.3g}")
    advice = (
        f"A range below {SMALLEST_RANGE:g} counts as none: to plan them, record them in smaller units"
        if normalizer.mode == "minmax"
        else f"To plan them, set the policy's {what} normalization to minmax; where only a sampler clips plans to "
        "[-1, 1], policy.sampler.clip=never is enough"
    )
    if said:
        warnings.warn(
            f"scaled by {normalizer.mode}, some demonstrated {what}s can be trained on and not be planned: "
            f"{'; '.join(said)}. {advice}",
            DataWarning,
            stacklevel=3,
        )
