"""Acting to learn: the episodes of a run in its world, and what is made of every step and every decision of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from robopol.algos.algorithm import Explored, by_owner, owned
from robopol.data.replay import ReplayBuffer
from robopol.data.replay_windows import AGE
from robopol.envs import VectorEnv
from robopol.errors import CheckpointError, ConfigError
from robopol.training.decisions import Decisions, Told
from robopol.training.seeding import generator, seed_of

Choose = Callable[[Mapping[str, Tensor], Generator], Explored]
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

    Who chooses is shown the history of an episode and says what to do in its next h steps; then in each step all
    environments go on, and those whose chunk is over, or whose episode ended, choose anew.

    An episode is a function of its seed and its actions (`robopol.envs.VectorEnv`). So the state of a running one is
    its seed and the actions so far: they are taken again when a run is resumed, which works for every world that keeps
    that promise, also for one that cannot save its state.

    Attributes:
        env: The world.
        replay: Where every transition goes, if anywhere.
        told: Told of every decision as it comes to its end, if anybody.
        finished: Episodes that ended since somebody last emptied the list.
        env_steps: Steps taken, of all environments together.
    """

    def __init__(
        self,
        env: VectorEnv,
        replay: ReplayBuffer | None,
        keys: Iterable[str],
        seed: int,
        device: torch.device,
        n_obs_steps: int = 1,
        told: Told | None = None,
    ) -> None:
        """Collect in a world; `begin` or `load_state` comes next.

        Args:
            env: The world; nobody else steps it.
            replay: Where every transition goes; None if nowhere.
            keys: The observations that are looked at.
            seed: Of the run.
            device: Where actions are chosen.
            n_obs_steps: To, observations of a history.
            told: Told of every decision as it comes to its end.
        """
        self.env, self.replay, self.seed, self.device, self.told = env, replay, seed, device, told
        self.finished: list[Finished] = []
        self.env_steps = self._episodes = 0
        count = env.num_envs
        self._all = list(range(count))
        self._seeds, self._totals = [0] * count, [0.0] * count
        self._actions: list[list[Tensor]] = [[] for _ in self._all]
        # its own memory: a world may hand out what it goes on writing into
        self._obs = {
            key: torch.zeros(
                count,
                n_obs_steps,
                *env.spec.obs_shapes[key],
                dtype=getattr(torch, env.spec.obs_dtypes[key]),
                device=env.device,
            )
            for key in keys
        }
        self._low, self._high = (torch.tensor(side) for side in (env.spec.action_low, env.spec.action_high))
        self._decisions = Decisions(count)

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
            choose: Chooses the actions, see `robopol.algos.algorithm.Explores.explore`; None draws them uniformly
                within their bounds, one at a time.

        Returns:
            Steps taken.
        """
        self._decide(self._draw if choose is None else choose)
        action = self._decisions.actions()
        result = self.env.step(self._all, action.to(self.env.device))
        if self.replay is not None:
            before = {key: rows[:, -1] for key, rows in self._obs.items()}
            after = (result.reward, result.terminated, result.truncated, result.obs)
            self.replay.add(before, action, *after, self._decisions.trace() | {AGE: self._decisions.age()})
        self._shift(result.obs)
        over = result.terminated | result.truncated
        ended, rewards, wins = over.tolist(), result.reward.tolist(), result.success.tolist()
        for slot, row in enumerate(action.unbind()):
            self._totals[slot] += rewards[slot]
            self._actions[slot].append(row)
            if ended[slot]:
                self.finished.append(Finished(self._totals[slot], len(self._actions[slot]), wins[slot]))
        closed = self._decisions.advance(result.reward.cpu(), over.cpu())
        if closed and self.told is not None:
            self.told(self._decisions.report(closed, result.terminated, result.truncated, self._obs))
        if any(ended):
            self._start([slot for slot in self._all if ended[slot]])
        self.env_steps += len(self._all)
        return len(self._all)

    def cut(self) -> None:
        """End all decisions under way where they stand, so that who chooses chooses anew in the next step."""
        slots = self._decisions.cut()
        if slots and self.told is not None:
            went_on = torch.zeros(len(self._all), dtype=torch.bool)
            self.told(self._decisions.report(slots, went_on, went_on, self._obs))

    def _decide(self, choose: Choose) -> None:
        """Have chosen what is done in the environments in which no decision is under way."""
        slots = self._decisions.idle
        if not slots:
            return
        seen = self._obs if len(slots) == len(self._all) else {key: rows[slots] for key, rows in self._obs.items()}
        rng = generator(self.device, self.seed, "exploration", self.env_steps)
        explored = choose({key: rows.to(self.device) for key, rows in seen.items()}, rng)
        within = explored._replace(action=explored.action.cpu().clamp(self._low, self._high))
        kept = {} if self.told is None else {key: rows.clone() for key, rows in seen.items()}
        self._decisions.begin(slots, within, kept)

    def state(self) -> dict[str, Tensor]:
        """Return everything that further steps depend on, the replay apart."""
        actions = [action for slot in self._actions for action in slot]
        return {
            "episodes": torch.tensor(self._episodes),
            "env_steps": torch.tensor(self.env_steps),
            "seeds": torch.tensor(self._seeds),
            "lengths": torch.tensor([len(slot) for slot in self._actions]),
            "actions": torch.stack(actions) if actions else torch.zeros(0, len(self._low)),
            **{f"obs.{key}": rows[:, -1].cpu() for key, rows in self._obs.items()},
            **owned("decisions", self._decisions.state()),
        }

    def load_state(self, state: Mapping[str, Tensor], acts: bool = True) -> None:
        """Take up what `state` returned, by taking the actions of the running episodes again.

        Args:
            state: What was returned.
            acts: Whether further steps are to come; else the world is left alone.

        Raises:
            CheckpointError: If the world does not come to where it was.
        """
        self._episodes, self.env_steps = int(state["episodes"]), int(state["env_steps"])
        if not acts:
            return
        self._seeds = state["seeds"].tolist()
        self._actions = [list(part) for part in state["actions"].split(state["lengths"].tolist())]
        self._totals = [0.0 for _ in self._all]
        self._fill(self._all, self.env.reset(self._all, self._seeds))
        for time in range(max(len(slot) for slot in self._actions)):
            slots = [slot for slot in self._all if time < len(self._actions[slot])]
            action = torch.stack([self._actions[slot][time] for slot in slots])
            result = self.env.step(slots, action.to(self.env.device))
            for row, slot in enumerate(slots):
                self._totals[slot] += result.reward[row].item()
            if bool((result.terminated | result.truncated).any()):
                raise self._strayed()
            self._shift(result.obs, slots)
        if not all(torch.equal(rows[:, -1].cpu(), state[f"obs.{key}"]) for key, rows in self._obs.items()):
            raise self._strayed()
        self._decisions.load_state(by_owner(state).get("decisions", {}), self.device, torch.device(self.env.device))

    def _start(self, slots: list[int]) -> None:
        """Begin an episode in some slots."""
        for slot in slots:
            self._seeds[slot] = FIRST_SEED + seed_of(self.seed, "episode", self._episodes) % FIRST_SEED
            self._episodes += 1
            self._totals[slot], self._actions[slot] = 0.0, []
        self._fill(slots, self.env.reset(slots, [self._seeds[slot] for slot in slots]))

    def _fill(self, slots: list[int], obs: Mapping[str, Tensor]) -> None:
        """Let the histories of some slots consist of first observations, key -> (n, ...)."""
        for key, rows in self._obs.items():
            if slots == self._all:
                rows.copy_(obs[key][:, None].expand_as(rows))
            else:
                rows[slots] = obs[key][:, None].expand(-1, *rows.shape[1:])

    def _shift(self, obs: Mapping[str, Tensor], slots: list[int] | None = None) -> None:
        """Let the histories of some slots, by default of all, go on to new observations, key -> (n, ...)."""
        for key, rows in self._obs.items():
            past = rows if slots is None else rows[slots]
            longer = obs[key][:, None] if past.shape[1] == 1 else torch.cat([past[:, 1:], obs[key][:, None]], 1)
            if slots is None:
                rows.copy_(longer)
            else:
                rows[slots] = longer

    def _draw(self, obs: Mapping[str, Tensor], rng: Generator) -> Explored:
        count = len(next(iter(obs.values())))
        share = torch.rand(count, len(self._low), generator=rng, device=self.device).cpu()
        return Explored((self._low + share * (self._high - self._low))[:, None])

    def _strayed(self) -> CheckpointError:
        return CheckpointError(
            f"{self.env.spec.id} did not come to where the run was when the same actions were taken again, so the run "
            "cannot be resumed exactly: it must be the same world, of the same version, on the same kind of device; "
            "on a GPU even that may not do (docs/gpu-simulation.md)"
        )
