"""A dataset in numbers."""

from typing import Any

import torch
from torch import Tensor

from robopol.data.episodes import Episodes


def describe(episodes: Episodes) -> dict[str, Any]:
    """Summarise a dataset.

    Args:
        episodes: The dataset; may be empty.

    Returns:
        JSON types only: counts of episodes and steps; ``length`` and ``return`` (min, mean, max over
        episodes); ``success_rate`` in [0, 1]; ``ways`` and ``sources`` (name -> episodes or steps);
        ``terminated`` and ``truncated`` (steps) and ``ends`` (episodes by how they end); ``columns``, each
        with shape, dtype, smallest and largest value per entry (over everything for images) and the entries
        that are ``constant``.
    """
    meta = episodes.meta
    last = episodes.starts + episodes.lengths - 1
    terminated, truncated = episodes.terminated[last], episodes.truncated[last]
    columns = {f"obs.{key}": column for key, column in episodes.obs.items()}
    columns |= {"action": episodes.action, "reward": episodes.reward}
    return {
        "env_id": meta.env_id,
        "episodes": len(episodes),
        "steps": episodes.num_steps,
        "length": _spread(episodes.lengths),
        "return": _spread(episodes.returns()),
        "success_rate": float(episodes.success.double().mean()) if len(episodes) else None,
        "ways": _counts(episodes.way, meta.way_names),
        "sources": _counts(episodes.source, meta.source_names),
        "interventions": int(episodes.intervention.sum()),
        "terminated": int(episodes.terminated.sum()),
        "truncated": int(episodes.truncated.sum()),
        "ends": {
            "terminated": int((terminated & ~truncated).sum()),
            "truncated": int((truncated & ~terminated).sum()),
            "both": int((terminated & truncated).sum()),
            "neither": int((~terminated & ~truncated).sum()),
        },
        "final_obs": int(episodes.has_final.sum()),
        "columns": {name: _column(column) for name, column in columns.items()},
    }


def _spread(values: Tensor) -> dict[str, float] | None:
    if not len(values):
        return None
    return {"min": values.min().item(), "mean": values.double().mean().item(), "max": values.max().item()}


def _counts(codes: Tensor, names: tuple[str, ...]) -> dict[str, int]:
    found, counts = torch.unique(codes, return_counts=True)
    labels = ["none" if code < 0 else names[code] if names else str(code) for code in found.tolist()]
    return dict(zip(labels, counts.tolist(), strict=True))


def _column(column: Tensor) -> dict[str, Any]:
    described: dict[str, Any] = {
        "shape": list(column.shape[1:]),
        "dtype": str(column.dtype).removeprefix("torch."),
    }
    if not len(column):
        return described
    if column.dtype == torch.uint8:
        low, high = column.aminmax()
        return described | {"min": low.item(), "max": high.item(), "constant": bool(low == high)}
    low, high = column.flatten(1).aminmax(dim=0) if column.dim() > 1 else column[:, None].aminmax(dim=0)
    constant = (low == high).nonzero().flatten().tolist()
    return described | {"min": low.tolist(), "max": high.tolist(), "constant": constant}
