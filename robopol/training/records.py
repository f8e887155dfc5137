"""The episodes that a run learns from: loaded, split, and put together for what is fitted to all of them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robopol.data import Episodes, load_episodes
from robopol.data.episodes import split_indices
from robopol.data.rewards import rewarded
from robopol.errors import ConfigError, DataError
from robopol.training.config import REPLAY, ROLLOUT, TrainConfig


def load_records(config: TrainConfig) -> tuple[dict[str, Episodes], dict[str, Tensor], dict[str, Tensor]]:
    """Load every source that a phase uses: its episodes, and which of them are for training and which held out.

    Nothing is copied for the split. The episodes have all observations that batches will have.

    Returns:
        Source -> its episodes; source -> (K,) int64, those for training; source -> those held out, if any are.

    Raises:
        ConfigError: If a phase draws from a source that was not named, or from one that was no phase does.
        DataError: If a source has too few episodes to hold one out.
    """
    episodes, train, held_out = {}, {}, {}
    used = {name for phase in config.phases.values() for name in phase.sources} - {REPLAY, ROLLOUT}
    if unknown := used - config.data.keys():
        there = ", ".join([*config.data, REPLAY])
        raise ConfigError(f"no data source is called {', '.join(sorted(unknown))}; there are {there}")
    if idle := config.data.keys() - used:
        raise ConfigError(
            f"no phase draws from data.{', data.'.join(sorted(idle))}: set schedule=beside_data, or another one that "
            "does, or leave the data out"
        )
    for name in sorted(used):
        source = config.data[name]
        loaded = rewarded(load_episodes(source.uri, cache=source.cache), config.reward)
        count = min(source.limit or len(loaded), len(loaded))
        if source.validation > 0 and count < 2:
            raise DataError(f"{source.uri} has {count} episodes, too few to hold one out: set data.{name}.validation=0")
        episodes[name] = source.sampling.observed(loaded)
        train[name], out = split_indices(count, source.validation, config.seed)
        if len(out):
            held_out[name] = out
    return episodes, train, held_out


def together(parts: Sequence[Episodes]) -> Episodes:
    """Return episodes of several sources, one after the other: what normalisers are fitted to.

    Of each what all have, observations and actions: sources may differ in whatever else was recorded, and in the
    versions with which it was.
    """
    if len(parts) == 1:
        return parts[0]
    shapes = [{key: column.shape[1:] for key, column in part.obs.items()} for part in parts]
    keys = [key for key in shapes[0] if all(other.get(key) == shapes[0][key] for other in shapes)]
    plain = [
        replace(
            part,
            obs={key: part.obs[key] for key in keys},
            final_obs={key: part.final_obs[key] for key in keys},
            way=torch.full_like(part.way, -1),
            states=None,
            model=None,
            task=None,
        )
        for part in parts
    ]
    return Episodes.concat(plain, meta=parts[0].meta)
