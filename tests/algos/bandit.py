"""A world of one step: x is drawn, an action of -1 or 1 is taken at random, and the right one is rewarded."""

import torch

from robopol.config import parse
from robopol.data import Episodes, EpisodesMeta
from robopol.networks.precision import RuntimeConfig
from robopol.policies import PolicySpec
from robopol.registry import lookup
from robopol.training.contract import joined
from robopol.training.sources import Sources

RUNTIME = RuntimeConfig(threads=1, matmul="highest").build()
WINDOW = {"n_obs_steps": 1, "horizon": 1, "n_action_steps": 1}
META = EpisodesMeta(control_hz=10.0, action_space="box", action_names=("x",), action_low=(-2.0,), action_high=(2.0,))


def bandit(count: int = 256, length: int = 1) -> Episodes:
    """Reward 1 for an action of 1, 0 for one of -1, both equally often."""
    rng, rows = torch.Generator().manual_seed(0), count * length
    side = (torch.arange(rows) % 2).float()
    last = torch.arange(rows) % length == length - 1
    return Episodes(
        obs={"state": 2 * torch.rand(rows, 1, generator=rng) - 1},
        action=(2 * side - 1)[:, None],
        reward=side,
        terminated=last,
        truncated=torch.zeros(rows, dtype=torch.bool),
        source=torch.zeros(rows, dtype=torch.int64),
        intervention=torch.zeros(rows, dtype=torch.bool),
        starts=torch.arange(count) * length,
        lengths=torch.full((count,), length),
        final_obs={"state": torch.zeros(count, 1)},
        has_final=torch.ones(count, dtype=torch.bool),
        success=torch.ones(count, dtype=torch.bool),
        way=torch.zeros(count, dtype=torch.int64),
        seed=torch.arange(count),
        meta=META,
    )


def build(group: str, kind: str, episodes: Episodes, **changes):
    """A policy or a model of one action, its normalisers fitted."""
    size = {"n_action_steps": 1} if group == "model" else WINDOW
    config = parse(lookup(group, kind), {"kind": kind} | size | changes)
    spec = {
        "obs_shapes": {key: list(column.shape[1:]) for key, column in episodes.obs.items()},
        "action_names": list(episodes.meta.action_names),
        "action_low": list(episodes.meta.action_low),
        "action_high": list(episodes.meta.action_high),
        "action_space": "box",
        "control_hz": 10.0,
        "n_obs_steps": config.n_obs_steps,
        "horizon": config.horizon,
        "n_action_steps": config.n_action_steps,
    }
    torch.manual_seed(0)
    made = config.build(parse(PolicySpec, spec))
    made.fit_normalizers(episodes)
    return made


class Learner:
    """An algorithm and the batches that it asks for."""

    def __init__(self, tree: dict, episodes: Episodes, updates: int = 400, **parts) -> None:
        config = parse(lookup("algo", tree["kind"]), tree)
        self.algo = config.build(**parts, total_updates=updates, runtime=RUNTIME)
        spec = joined(part.spec for part in parts.values())
        needs = self.algo.needs
        known = {} if needs.rollout or needs.trace is not None else {"toy": episodes}
        self.sources = Sources(known, spec, 0, torch.device("cpu"), needs=needs)
        self.updates = updates

    def batch(self, step: int, size: int = 64) -> dict:
        return self.sources.batch({"toy": 1.0}, size, step)

    def update(self, step: int) -> dict:
        torch.manual_seed(step)
        return self.algo.update(self.batch(step), step, torch.Generator().manual_seed(step))

    def learn(self):
        for step in range(self.updates):
            self.update(step)
        return self.algo
