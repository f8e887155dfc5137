"""A dataset in numbers."""

import hashlib
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from robopol.data import metrics
from robopol.data.episodes import Episodes
from robopol.data.reference import normalised_score, reference_returns
from robopol.errors import DataError

GOOD_QUALITY = 0.8
"""TQ above which imitating everything is as good as anything (Schweighofer et al., 2021)."""
WORTH_WEIGHTING = 0.005
"""Positive-sided variance above which a few episodes are much better than the rest (a rule of thumb: 5 percent of
expert among random episodes give 0.045, one policy that varies by a tenth of the references' distance gives 0.005)."""
WIDE_COVERAGE = 0.5
"""SACo above which a dataset is about as wide as what an online run sees."""


def describe(episodes: Episodes) -> dict[str, Any]:
    """Summarise a dataset.

    Args:
        episodes: The dataset; may be empty.

    Returns:
        JSON types only: counts of episodes and steps; ``length`` and ``return`` (min, mean, max over
        episodes); ``success_rate`` in [0, 1]; ``ways`` and ``sources`` (name -> episodes or steps);
        ``terminated`` and ``truncated`` (steps) and ``ends`` (episodes by how they end); ``tasks`` (text ->
        episodes); ``columns``, each with shape, dtype, smallest and largest value per entry (over everything for
        images) and the entries that are ``constant``. Numbers that are not finite cannot occur: `Episodes`
        refuses them.
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
        "tasks": {} if episodes.task is None else _counts(episodes.task, meta.tasks),
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


def duplicates(episodes: Episodes) -> dict[str, int]:
    """Count what is there again.

    Args:
        episodes: The dataset; may be empty.

    Returns:
        ``episodes`` and ``steps`` that are bit for bit an earlier one (observation, action, reward, flags; of an
        episode also the final observation).
    """
    names = ("action", "reward", "terminated", "truncated")
    columns = [*episodes.obs.values(), *(getattr(episodes, name) for name in names)]
    arrays = [column.cpu().numpy() for column in columns]
    digests = []
    for row in range(episodes.num_steps):
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(array[row].tobytes())
        digests.append(digest.digest())
    ends = [array.cpu().numpy() for array in episodes.final_obs.values()]
    whole = set()
    for index, (start, length) in enumerate(zip(episodes.starts.tolist(), episodes.lengths.tolist(), strict=True)):
        whole.add(b"".join(digests[start : start + length]) + b"".join(end[index].tobytes() for end in ends))
    return {"episodes": len(episodes) - len(whole), "steps": len(digests) - len(set(digests))}


def assess(
    episodes: Episodes,
    *,
    references: tuple[float, float] | None = None,
    reference: Episodes | None = None,
    bins: int = 100,
    k: int = 10,
    rows: int = 10_000,
    alpha: float = 0.1,
    seed: int = 0,
) -> dict[str, Any]:
    """Say what the data are good for; see `robopol.data.metrics`.

    Args:
        episodes: The dataset, at least one episode, on the CPU.
        references: Return of a random and of an expert policy; by default those that the dataset states, or D4RL
            for the environment, if they do.
        reference: The dataset that coverage is compared with, e.g. all that an online run saw.
        bins: Bins per column of the cells that coverage counts.
        k: Neighbours that a row is compared with.
        rows: Rows of the sample for those comparisons.
        alpha: Temperature of the weighting by return.
        seed: Of the sample and of random directions.

    Returns:
        JSON types only; what cannot be said is None.

    Raises:
        DataError: If there are no episodes, the references are the wrong way round, or the reference dataset
            has other columns.
    """
    if not len(episodes):
        raise DataError("there are no episodes to assess")
    sources = {
        "the command": references,
        "the dataset": episodes.meta.reference_returns,
        "D4RL": reference_returns(episodes.meta.env_id),
    }
    origin = next((name for name, pair in sources.items() if pair is not None), "")
    low_high = sources.get(origin)
    if low_high is not None and not low_high[0] < low_high[1]:
        raise DataError(f"the return of the random policy must be below the expert's, got {low_high}")
    returns = episodes.returns()[metrics.complete_episodes(episodes)]
    quality = variance = None
    if low_high is not None and len(returns):
        quality = metrics.trajectory_quality(returns, *low_high)
        variance = metrics.positive_sided_variance(returns, *low_high)
    judged_by, judged = "returns", (quality, variance)
    if quality is None and bool(episodes.success.any()):
        success = episodes.success.double()
        judged_by = "success, for want of reference returns"
        judged = metrics.trajectory_quality(success, 0, 1), metrics.positive_sided_variance(success, 0, 1)
    coverage = _coverage(episodes, reference, bins, seed)
    near = metrics.neighbourhoods(episodes, k, rows, seed)
    return {
        "env_id": episodes.meta.env_id,
        "episodes": len(episodes),
        "complete_episodes": len(returns),
        "steps": episodes.num_steps,
        "return": _spread(returns),
        "references": None if low_high is None else {"random": low_high[0], "expert": low_high[1], "from": origin},
        "score": None if quality is None or low_high is None else normalised_score(float(returns.mean()), *low_high),
        "tq": quality,
        "positive_sided_variance": variance,
        "effective_sample_size": {
            "return_weighted_steps": metrics.effective_sample_size(metrics.trajectory_weights(episodes, alpha)),
            "episodes_that_bring_return": metrics.effective_sample_size(metrics.return_weights(episodes)),
        },
        "coverage": coverage,
        "neighbourhoods": None if near is None else asdict(near),
        "recommendation": _recommend(*judged, coverage["saco"]),
        "judged_by": None if judged[0] is None else judged_by,
    }


def _coverage(episodes: Episodes, reference: Episodes | None, bins: int, seed: int) -> dict[str, Any]:
    own = metrics.state_actions(episodes)
    other = own if reference is None else metrics.state_actions(reference)
    if own.shape[1] != other.shape[1]:
        raise DataError(
            f"the reference dataset has {other.shape[1]} columns of low-dim observation and action, "
            f"this one has {own.shape[1]}; only datasets of the same world can be compared"
        )
    grid = metrics.Grid(other, bins, seed)
    cells = grid.unique(own)
    return {
        "cells": cells,
        "cells_per_step": cells / len(own),
        "bins": bins,
        "dims": grid.dims,
        "projected_from": own.shape[1] if own.shape[1] > grid.dims else None,
        "saco": None if reference is None else cells / grid.unique(other),
        "note": "nearly every step has a cell of its own: lower bins=" if cells > 0.95 * len(own) else None,
    }


def _recommend(quality: float | None, variance: float | None, saco: float | None) -> str:
    """Put the findings of the studies into one sentence."""
    if quality is None or variance is None:
        return (
            "none: without reference returns (ref_min=, ref_max=) or successes nobody can say how good the episodes are"
        )
    if quality > GOOD_QUALITY:
        return "behaviour cloning, plain or weighted: the episodes are nearly all as good as can be"
    if variance > WORTH_WEIGHTING:
        return "sampling weighted by return, with TD3+BC or IQL: some episodes are much better than the mean"
    if saco is not None and saco > WIDE_COVERAGE:
        return "offline RL with a loose constraint, e.g. CQL: the episodes are poor but go nearly everywhere"
    return "offline RL that stays close to the data, e.g. TD3+BC or IQL: the episodes are alike, and not good"


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
