"""What learns to edit a policy's proposals: it sees them as the policy has them, and changes them within a box."""

from typing import Any

import torch

from robopol.algos.sharing import sharing
from robopol.config import parse
from robopol.errors import ConfigError
from robopol.policies import Policy, PolicySpec
from robopol.steering.editing import PROPOSAL


def editing(config: Any, base: Policy, steps: int, reach: float) -> Any:
    """Make an editor of a policy's proposals.

    Args:
        config: Of an actor.
        base: The policy.
        steps: h, the actions that it sees and changes.
        reach: Greatest change of an action entry, in units of half the width of its bounds.

    Returns:
        The actor; every entry of the change is one of its action.

    Raises:
        ConfigError: If an action has no bounds, or the policy looks at anything but vectors.
    """
    low, high = torch.tensor([base.spec.action_low, base.spec.action_high], dtype=torch.float64)
    if not bool((high - low).isfinite().all()):
        raise ConfigError("edits are in units of the action bounds, and some action has none")
    farthest = (reach * (high - low) / 2).repeat(steps).tolist()
    told = {
        "obs_shapes": {**base.spec.tree()["obs_shapes"], PROPOSAL: [len(farthest)]},
        "action_names": [f"edit {i}" for i in range(len(farthest))],
        "action_low": [-one for one in farthest],
        "action_high": farthest,
        "action_space": "edit",
        "n_obs_steps": 1,
        "horizon": 1,
        "n_action_steps": 1,
    }
    editor = sharing(config, base, parse(PolicySpec, base.spec.tree() | told))
    # observations and actions in the scale in which the base policy has them
    seen: Any = base.observation
    sizes = dict(zip(seen.keys, seen.sizes, strict=True))
    for name in ("scale", "offset", "unscale"):
        known = dict(zip(seen.keys, getattr(seen.normalizer, name).split(list(sizes.values())), strict=True))
        known[PROPOSAL] = getattr(base.action_normalizer, name).repeat(steps)
        getattr(editor.observation.normalizer, name).copy_(torch.cat([known[key] for key in editor.observation.keys]))
    return editor
