"""A policy and critics, trained together from records; used by fql.py, diffusion_ql.py and stitching.py."""

from collections.abc import Mapping
from typing import Any

import torch

from robopol.config import parse
from robopol.data import Episodes
from robopol.networks.precision import RuntimeConfig
from robopol.policies import PolicySpec
from robopol.registry import lookup
from robopol.training.contract import joined
from robopol.training.sources import Sources

BATCH = 256


def learn(
    trees: Mapping[str, Mapping[str, Any]],
    spec: Mapping[str, Any],
    data: Mapping[str, Episodes],
    seed: int,
    updates: int,
) -> Any:
    """Train, and return the algorithm.

    Args:
        trees: ``policy``, ``model`` and ``algo`` -> what each is told, with its kind.
        spec: The contract with the world.
        data: What is learned from, by its name, which its order depends on.
        seed: Of weights and draws.
        updates: How many.
    """
    runtime, parts = RuntimeConfig(threads=1, matmul="highest").build(), {}
    ((name, episodes),) = data.items()
    torch.manual_seed(seed)
    for group in ("policy", "model"):
        parts[group] = _of(group, trees).build(parse(PolicySpec, spec))
        parts[group].fit_normalizers(episodes)
    algo = _of("algo", trees).build(**parts, total_updates=updates, runtime=runtime)
    whole = joined(part.spec for part in parts.values())
    sources = Sources(data, whole, seed, torch.device("cpu"), needs=algo.needs)
    for step in range(updates):
        algo.update(sources.batch({name: 1.0}, BATCH, step), step, torch.Generator().manual_seed(seed + 10 * step))
    return algo


def _of(group: str, trees: Mapping[str, Mapping[str, Any]]) -> Any:
    found: Any = lookup(group, trees[group]["kind"])
    return parse(found, trees[group])
