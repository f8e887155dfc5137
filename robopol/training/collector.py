"""Acting to learn: the episodes of a run in its world, every transition of which goes into the replay."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from robopol.data.replay import ReplayBuffer
from robopol.envs import VectorEnv
from robopol.errors import CheckpointError, ConfigError
from robopol.training.seeding import generator, seed_of

Choose = Callable[[Mapping[str, Tensor], Generator], Tensor]
"""Chooses actions; see `robopol.algos.algorithm.Explores.explore`."""

FIRST_SEED = 2**30
"""Least seed of an episode that is learned from; those of demonstrations and evaluations are smaller."""


class Finished(NamedTuple):
    """An episode that ended.

    Attributes:
        total: Sum of its rewards.
        length: Its steps.
        success: Whether the task succeeded.
    """

    total: float
    length: int
    success: bool


class Collector:
    """Steps a world, and remembers what is needed to come back to this very state of it.

    An episode is a function of its seed and its actions (`robopol.envs.VectorEnv`). So the state of a running one is
    its seed and the actions so far: they are taken again when a run is resumed, which works for every world that keeps
    that promise, also for one that cannot save its state.

    Attributes:
        env: The world.
        replay: Where the transitions go.
        finished: Episodes that ended since somebody last emptied the list.
        env_steps: Steps taken, of all environments together.
    """

    def __init__(
        self, env: VectorEnv, replay: ReplayBuffer, keys: Iterable[str], seed: int, device: torch.device
    ) -> None:
        """Collect in a world; `begin` or `load_state` comes next.

        Args:
            env: The world; nobody else steps it.
            replay: Where the transitions go.
            keys: The observations that the replay keeps.
            seed: Of the run.
            device: Where actions are chosen.
        """
        self.env, self.replay, self.seed, self.device = env, replay, seed, device
        self.finished: list[Finished] = []
        self.env_steps = self._episodes = 0
        count = env.num_envs
        self._all = list(range(count))
        self._seeds, self._totals = [0] * count, [0.0] * count
        self._actions: list[list[Tensor]] = [[] for _ in self._all]
        # its own memory: a world may hand out what it goes on writing into
        self._obs = {key: torch.zeros(count, *env.spec.obs_shapes[key], device=env.device) for key in keys}
        self._low, self._high = (torch.tensor(side) for side in (env.spec.action_low, env.spec.action_high))

    def check_bounds(self) -> None:
        """Check that random actions can be drawn.

        Raises:
            ConfigError: If an action has no bounds.
        """
        if not bool((self._low.isfinite() & self._high.isfinite()).all()):
            raise ConfigError("a warm-up draws actions within their bounds, and some action has none: set warmup=0")

    def begin(self) -> None:
        """Start the first episodes."""
        self._start(self._all)

    def step(self, choose: Choose | None) -> int:
        """Take one step in every environment.

        Args:
            choose: Chooses the actions; None draws them uniformly within their bounds.

        Returns:
            Steps taken.
        """
        rng = generator(self.device, self.seed, "exploration", self.env_steps)
        obs = {key: rows.to(self.device) for key, rows in self._obs.items()}
        action = (self._draw if choose is None else choose)(obs, rng).cpu().clamp(self._low, self._high)
        result = self.env.step(self._all, action.to(self.env.device))
        self.replay.add(self._obs, action, result.reward, result.terminated, result.truncated, result.obs)
        self._place(self._all, result.obs)
        ended = (result.terminated | result.truncated).tolist()
        rewards, wins = result.reward.tolist(), result.success.tolist()
        for slot in self._all:
            self._totals[slot] += rewards[slot]
            self._actions[slot].append(action[slot])
            if ended[slot]:
                self.finished.append(Finished(self._totals[slot], len(self._actions[slot]), wins[slot]))
        if any(ended):
            self._start([slot for slot in self._all if ended[slot]])
        self.env_steps += len(self._all)
        return len(self._all)

    def state(self) -> dict[str, Tensor]:
        """Return everything that further steps depend on, the replay apart."""
        actions = [action for slot in self._actions for action in slot]
        return {
            "episodes": torch.tensor(self._episodes),
            "env_steps": torch.tensor(self.env_steps),
            "seeds": torch.tensor(self._seeds),
            "lengths": torch.tensor([len(slot) for slot in self._actions]),
            "actions": torch.stack(actions) if actions else torch.zeros(0, len(self._low)),
            **{f"obs.{key}": rows.cpu() for key, rows in self._obs.items()},
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned, by taking the actions of the running episodes again.

        Raises:
            CheckpointError: If the world does not come to where it was.
        """
        self._episodes, self.env_steps = int(state["episodes"]), int(state["env_steps"])
        self._seeds = state["seeds"].tolist()
        self._actions = [list(part) for part in state["actions"].split(state["lengths"].tolist())]
        self._totals = [0.0 for _ in self._all]
        self._place(self._all, self.env.reset(self._all, self._seeds))
        for time in range(max(len(slot) for slot in self._actions)):
            slots = [slot for slot in self._all if time < len(self._actions[slot])]
            action = torch.stack([self._actions[slot][time] for slot in slots])
            result = self.env.step(slots, action.to(self.env.device))
            for row, slot in enumerate(slots):
                self._totals[slot] += result.reward[row].item()
            if bool((result.terminated | result.truncated).any()):
                raise self._strayed()
            self._place(slots, result.obs)
        if not all(torch.equal(rows.cpu(), state[f"obs.{key}"]) for key, rows in self._obs.items()):
            raise self._strayed()

    def _start(self, slots: list[int]) -> None:
        """Begin an episode in some slots."""
        for slot in slots:
            self._seeds[slot] = FIRST_SEED + seed_of(self.seed, "episode", self._episodes) % FIRST_SEED
            self._episodes += 1
            self._totals[slot], self._actions[slot] = 0.0, []
        self._place(slots, self.env.reset(slots, [self._seeds[slot] for slot in slots]))

    def _place(self, slots: list[int], obs: Mapping[str, Tensor]) -> None:
        """Let some slots show new observations."""
        for key, rows in self._obs.items():
            if slots == self._all:
                rows.copy_(obs[key])
            else:
                rows[slots] = obs[key]

    def _draw(self, obs: Mapping[str, Tensor], rng: Generator) -> Tensor:
        share = torch.rand(len(self._all), len(self._low), generator=rng, device=self.device).cpu()
        return self._low + share * (self._high - self._low)

    def _strayed(self) -> CheckpointError:
        return CheckpointError(
            f"{self.env.spec.id} did not come to where the run was when the same actions were taken again, so the run "
            "cannot be resumed exactly: it must be the same world, of the same version, on the same kind of device"
        )
