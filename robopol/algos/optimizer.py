"""An optimiser's memory as named tensors, so that it can be stored without pickling."""

from collections.abc import Mapping

import torch
from torch import Tensor


def optimizer_state(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Return every tensor that the optimiser keeps for its parameters.

    Args:
        optimizer: One whose memory consists of tensors, as Adam's.
        prefix: Put before each name.

    Returns:
        ``prefix.<index of the parameter>.<name>`` -> tensor. Settings are left to the config.
    """
    memory = optimizer.state_dict()["state"]
    return {f"{prefix}.{index}.{name}": value for index, part in memory.items() for name, value in part.items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor], prefix: str) -> None:
    """Give back to the optimiser what `optimizer_state` took from it.

    Args:
        optimizer: One over the same parameters in the same order.
        state: Named tensors, others among them.
        prefix: As it was given to `optimizer_state`.
    """
    memory: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith(f"{prefix}."):
            index, name = key.removeprefix(f"{prefix}.").split(".", 1)
            memory.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
