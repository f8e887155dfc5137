"""What every executor is: the memory of some episodes around one policy, and the timing of its plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from robopol.config import Config
from robopol.errors import ConfigError
from robopol.policies import Policy, PolicySpec, Previous
from robopol.policies.policy import Filler

BLOCK = 16
"""Rows that a policy always plans for at once; see `Executor`."""


class ExecutorConfig(Config):
    """What all executors are told, and what they say.

    How the policy is prepared, after how many steps it is asked again, and what a new plan does to the one that is
    followed: that holds wherever a policy acts. In simulation time is counted in control steps, by `Executor`; on a
    robot, in nanoseconds, by `robopol.real_robot`.

    Attributes:
        latency: Control steps by which every plan but an episode's first is late; 0 plans in no time. On a robot plans
            are as late as they are.
    """

    latency: int = Field(0, ge=0)

    @property
    def merging(self) -> dict[str, Any]:
        """What becomes of the plan that is followed when a new one comes: the tree of a ``merging``, of a robot."""
        return {"kind": "replace"}

    def prepared(self, policy: Policy) -> Policy:
        """Return a policy, steered as its plans are to be.

        Raises:
            ConfigError: If it cannot be.
        """
        return policy

    def period(self, spec: PolicySpec) -> int:
        """Return the control steps after which a policy is asked for the next plan, if the last has come by then."""
        return spec.n_action_steps

    def build(self, policy: Policy) -> "Executor":
        """Return the executor of a policy.

        Raises:
            ConfigError: If it cannot be prepared, its plans do not last so long, or they are over when they arrive.
        """
        return Executor(self.prepared(policy), self.period(policy.spec), self.latency)


class Decision(NamedTuple):
    """What one control step came to; every tensor has one row for each slot, in the order given."""

    action: Tensor
    """(n, A) float32 in environment units."""
    planned: Tensor
    """(n,) bool: the policy was asked for a plan in this step."""
    seam: Tensor
    """(n,) bool: a plan has arrived, so what is executed from here on is not what it would have been."""
    starved: Tensor
    """(n,) bool: no plan reaches to this step, and the last action is repeated."""


class Plan(NamedTuple):
    """One answer of the policy."""

    step: int
    """The step of the episode whose observation it was asked for with."""
    ready: int
    """The first step in which it can be executed."""
    window: Tensor
    """(Tp, A) in environment units, from the step of the oldest observation on."""


@dataclass
class Episode:
    """What is remembered of the episode in one slot.

    Attributes:
        generator: Source of all its noise.
        step: The control step, from 0 on.
        history: Key -> the last To observations (To, ...).
        plans: Those that have arrived and reach to this step, oldest first.
        underway: The plan that was asked for and has not arrived.
        asked: The step in which the policy was last asked.
        action: The last action (A,).
    """

    generator: torch.Generator
    step: int = -1
    history: dict[str, Tensor] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)
    underway: Plan | None = None
    asked: int = -1
    action: Tensor | None = None

    def previous(self) -> Previous | None:
        """Return the plan that there is now, if any."""
        return Previous(self.plans[-1].window, self.step - self.plans[-1].step) if self.plans else None

    def land(self) -> bool:
        """Take the plan under way if it has arrived, and say whether it has."""
        if self.underway is None or self.step < self.underway.ready:
            return False
        self.plans.append(self.underway)
        self.underway = None
        return True


class Executor:
    """Chooses the actions of the episodes in some slots from the plans of one policy.

    Time is counted in control steps. A plan that is asked for with the observation of step t says what to do in the
    steps t to t + H - 1. With a latency of k it arrives in step t + k; its first k actions are over by then and are
    never executed. Until it arrives, the plans that are there go on as far as they reach. Beyond that the episode
    starves: the last action is repeated as it is, so a pose is held, and a velocity or a difference goes on, as servo
    loops do that get no new command. (Zeros would mean rest for some kinds of action only.) The first plan of an
    episode is waited for, with the robot at rest, and is never late.

    A policy computes one plan for a slot at a time. It is asked for the next one ``period`` steps after it was last
    asked, and not before that one has arrived.

    What an episode does depends on its seed and its observations alone. Its noise comes from a generator of its own;
    and as a matrix product may round differently for another number of rows, the policy always sees exactly `BLOCK`
    rows, filled up with copies where fewer episodes plan. (One that computes each row by itself sees no copies.)

    Attributes:
        policy: The policy, in evaluation mode.
        period: Control steps between two plans, at least 1.
        latency: Control steps until a plan arrives.
    """

    def __init__(self, policy: Policy, period: int, latency: int) -> None:
        """Execute a policy.

        Args:
            policy: It is put into evaluation mode.
            period: Control steps between two plans.
            latency: Control steps until a plan arrives.

        Raises:
            ConfigError: If its plans do not last so long.
        """
        chunk = policy.spec.chunk
        check_period(policy.spec, period)
        if not 0 <= latency < chunk:
            raise ConfigError(
                f"a plan that arrives {latency} steps late is over: the policy plans {chunk} actions from now on, so "
                f"the latency can be at most {chunk - 1}"
            )
        self.policy = policy.eval()
        self.period, self.latency = period, latency
        self._episodes: dict[int, Episode] = {}

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin an episode in each of some slots; whatever was remembered there is forgotten.

        Args:
            slots: Numbers by which the episodes are told apart while they last.
            seeds: All randomness of an episode is drawn from its seed.
        """
        for slot, seed in zip(slots, seeds, strict=True):
            self._episodes[slot] = Episode(torch.Generator().manual_seed(seed))

    def act(self, slots: Sequence[int], obs: Mapping[str, Tensor]) -> Tensor:
        """Return the actions (n, A) of the next control step; see `decide`."""
        return self.decide(slots, obs).action

    def decide(self, slots: Sequence[int], obs: Mapping[str, Tensor]) -> Decision:
        """Go on by one control step.

        Args:
            slots: Distinct slots that were reset; the others do not move.
            obs: Their newest observations, key -> (n, ...); the policy takes those that it looks at.

        Returns:
            What to execute, and how it came about.
        """
        episodes = [self._episodes[slot] for slot in slots]
        for row, episode in enumerate(episodes):
            self._observe(episode, {key: obs[key][row] for key in self.policy.spec.obs_shapes})
        arrived = [episode.land() for episode in episodes]
        asking = [slot for slot, episode in zip(slots, episodes, strict=True) if self._due(episode)]
        for slot, window in self._windows(asking).items():
            episode = self._episodes[slot]
            late = self.latency if episode.step else 0
            episode.underway = Plan(episode.step, episode.step + late, window)
            episode.asked = episode.step
        arrived = [episode.land() or before for episode, before in zip(episodes, arrived, strict=True)]
        return Decision(
            torch.stack([self._next_action(episode) for episode in episodes]),
            torch.tensor([episode.asked == episode.step for episode in episodes]),
            torch.tensor([new and episode.step > 0 for episode, new in zip(episodes, arrived, strict=True)]),
            torch.tensor([not episode.plans for episode in episodes]),
        )

    def _merged(self, actions: Tensor, since: Sequence[int]) -> Tensor:
        """Return the action of a step that one or more plans have an action for.

        Args:
            actions: Theirs, (n, A), oldest plan first.
            since: Steps since each of these plans arrived.
        """
        return actions[-1]

    def _windows(self, slots: Sequence[int]) -> dict[int, Tensor]:
        """Let the policy plan for some slots, perhaps for none, `BLOCK` at a time: slot -> window (Tp, A)."""
        device = self.policy.device
        found: dict[int, Tensor] = {}
        for start in range(0, len(slots), BLOCK):
            block = slots[start : start + BLOCK]
            size = len(block) if self.policy.rowwise else BLOCK
            rows = [*block, *[block[0]] * (size - len(block))]
            obs = {
                key: torch.stack([self._episodes[slot].history[key] for slot in rows]).to(device)
                for key in self.policy.spec.obs_shapes
            }
            spare = Filler().manual_seed(0)
            generators = [self._episodes[slot].generator for slot in block] + [spare] * (size - len(block))
            previous = [self._episodes[slot].previous() for slot in rows]
            windows = self.policy.plan(obs, 1, generators, previous)[:, 0]
            found |= dict(zip(block, windows.cpu(), strict=False))
        return found

    def _observe(self, episode: Episode, newest: Mapping[str, Tensor]) -> None:
        """Begin a step: shift the observation into the history, which the first one fills; drop plans that are over."""
        episode.step += 1
        steps, past = self.policy.spec.n_obs_steps, episode.history
        episode.history = {
            key: torch.cat([past[key][1:], value[None]]) if past else torch.stack([value] * steps)
            for key, value in newest.items()
        }
        episode.plans = [plan for plan in episode.plans if episode.step < plan.step + self.policy.spec.chunk]

    def _due(self, episode: Episode) -> bool:
        """Say whether the policy is asked for a plan in this step."""
        return episode.asked < 0 or (episode.underway is None and episode.step >= episode.asked + self.period)

    def _next_action(self, episode: Episode) -> Tensor:
        """Return the action (A,) of this step."""
        if episode.plans or episode.action is None:
            now = self.policy.spec.n_obs_steps - 1 + episode.step
            actions = torch.stack([plan.window[now - plan.step] for plan in episode.plans])
            episode.action = self._merged(actions, [episode.step - plan.ready for plan in episode.plans])
        return episode.action


def check_period(spec: PolicySpec, period: int) -> None:
    """See that a policy's plans last until the next is asked for.

    Raises:
        ConfigError: If they do not.
    """
    if not 1 <= period <= spec.chunk:
        raise ConfigError(f"{period} actions of a plan cannot be executed: the policy plans {spec.chunk} from now on")
