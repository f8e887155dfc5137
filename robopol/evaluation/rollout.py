"""Episodes of an actor in an environment, each determined by its seed alone."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from robopol.config import Config
from robopol.envs import EnvSpec, VectorEnv
from robopol.errors import EnvError
from robopol.evaluation.actors import Actor
from robopol.evaluation.recorder import Recorder


class Outcome(Config):
    """How one episode went.

    Attributes:
        seed: What it was reset with.
        success: Whether the task succeeded.
        total_reward: Undiscounted sum of rewards.
        length: Steps taken.
        way: Which way to succeed it took, or None.
    """

    seed: int
    success: bool
    total_reward: float
    length: int
    way: str | None


class Watcher(Protocol):
    """Sees the frames of an episode; see `robopol.evaluation.video`."""

    def wants(self, seed: int) -> bool:
        """Say whether the episode with this seed is to be rendered."""

    def frame(self, seed: int, image: np.ndarray) -> None:
        """Take the next frame (H, W, 3) uint8 of an episode."""


def check_ends(spec: EnvSpec) -> None:
    """Refuse a world in which an episode may go on for ever.

    Raises:
        EnvError: If it has no time limit.
    """
    if not spec.max_episode_steps:
        raise EnvError(
            f"'{spec.id}' has no time limit, so that an episode may never end: say one, by "
            "env.options.max_episode_steps=1000 or 'env.wrappers=[{kind: time_limit, steps: 1000}]'"
        )


def rollout(
    actor: Actor,
    env: VectorEnv,
    seeds: Sequence[int],
    *,
    recorder: Recorder | None = None,
    watcher: Watcher | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run one episode for each seed.

    Args:
        actor: Who chooses the actions.
        env: Where; its slots take the next waiting seed as soon as their episode ends.
        seeds: One for each episode.
        recorder: Records every episode.
        watcher: Given rendered frames of the episodes that it wants.
        on_outcome: Told of each episode as it ends, e.g. for a progress bar.

    Returns:
        Outcomes in the order of ``seeds``.

    Raises:
        EnvError: If the world has no time limit.
    """
    check_ends(env.spec)
    waiting = list(range(len(seeds)))[::-1]
    running: dict[int, int] = {}  # slot -> index of its episode
    totals, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=int)
    obs = {
        key: torch.zeros(env.num_envs, *shape, dtype=getattr(torch, env.spec.obs_dtypes[key]))
        for key, shape in env.spec.obs_shapes.items()
    }
    outcomes: dict[int, Outcome] = {}

    def watch(slots: Sequence[int]) -> None:
        for slot in slots:
            if watcher is not None and watcher.wants(seeds[running[slot]]):
                watcher.frame(seeds[running[slot]], env.render(slot))

    while waiting or running:
        fresh = [slot for slot in range(env.num_envs) if slot not in running][: len(waiting)]
        if fresh:
            for slot in fresh:
                running[slot] = waiting.pop()
                totals[slot] = lengths[slot] = 0
                if recorder is not None:
                    recorder.begin(slot, seeds[running[slot]])
            started = [seeds[running[slot]] for slot in fresh]
            for key, rows in env.reset(fresh, started).items():
                obs[key][fresh] = rows.cpu()
            actor.reset(fresh, started)
            watch(fresh)
        slots = sorted(running)
        now = {key: rows[slots] for key, rows in obs.items()}
        states = None if recorder is None else recorder.states(slots)
        actions = actor.act(slots, now)
        result = env.step(slots, actions).cpu()  # wherever the world is, what is told and recorded of it is here
        totals[slots] += result.reward.numpy()
        lengths[slots] += 1
        for key, rows in result.obs.items():
            obs[key][slots] = rows
        if recorder is not None and states is not None:
            recorder.add(slots, now, states, actions, result)
        watch(slots)
        for row in torch.nonzero(result.terminated | result.truncated)[:, 0].tolist():
            slot, way = slots[row], int(result.way[row])
            index = running.pop(slot)
            if recorder is not None:
                recorder.finish(slot, row, result, index)
            outcomes[index] = Outcome(
                seed=int(seeds[index]),
                success=bool(result.success[row]),
                total_reward=float(totals[slot]),
                length=int(lengths[slot]),
                way=env.spec.way_names[way] if way >= 0 else None,
            )
            if on_outcome is not None:
                on_outcome(outcomes[index])
    return [outcomes[index] for index in range(len(seeds))]
