"""How smoothly and how timely the plans of a policy were executed."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from robopol.config import Config, OneOf
from robopol.execution import Executor


class Execution(Config):
    """How the plans were executed, over all steps of all episodes.

    Actions are measured in the policy's normalised units, after they are clipped to the bounds of the world. By
    default the range of an entry in the training data is 2, and an entry that never varied counts for nothing.
    A figure is None where there was nothing to measure.

    Attributes:
        executor: The executor.
        seam_jump: Mean Euclidean distance of two successive actions where a new plan came between them.
        step_change: The same where none did, of the steps that had a plan: what is ordinary.
        jerk: Mean squared Euclidean length of the third difference of the actions, times control_hz^6: units^2 / s^6.
            Where the control rate is unknown it is taken as 1.
        starvation: Share of the steps in which the last action was repeated for want of a plan.
        plans: Mean number of plans of an episode.
    """

    executor: Annotated[Any, OneOf("executor")]
    seam_jump: float | None
    step_change: float | None
    jerk: float | None
    starvation: float
    plans: float


class Moment(NamedTuple):
    """One control step of an episode, as in `robopol.execution.Decision`."""

    action: Tensor
    planned: bool
    seam: bool
    starved: bool


class Monitor:
    """Lets an executor act, and remembers how; a `robopol.evaluation.actors.Actor`.

    Attributes:
        executor: The executor.
        episodes: Seed -> what the executor did in each step.
    """

    def __init__(self, executor: Executor) -> None:
        """Watch an executor."""
        self.executor = executor
        self.episodes: dict[int, list[Moment]] = {}
        self._seeds: dict[int, int] = {}

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """See `robopol.evaluation.actors.Actor.reset`."""
        self.executor.reset(slots, seeds)
        self._seeds |= dict(zip(slots, seeds, strict=True))
        self.episodes |= {seed: [] for seed in seeds}

    def act(self, slots: Sequence[int], obs: Mapping[str, Tensor]) -> Tensor:
        """See `robopol.evaluation.actors.Actor.act`."""
        decision = self.executor.decide(slots, obs)
        flags = zip(decision.planned.tolist(), decision.seam.tolist(), decision.starved.tolist(), strict=True)
        for slot, action, (planned, seam, starved) in zip(slots, decision.action, flags, strict=True):
            self.episodes[self._seeds[slot]].append(Moment(action, planned, seam, starved))
        return decision.action

    def execution(self, executor: Config) -> Execution:
        """Sum up all episodes, at least one.

        Args:
            executor: The executor's config, for the record.
        """
        policy, episodes = self.executor.policy, [self.episodes[seed] for seed in sorted(self.episodes)]
        low, high = torch.tensor(policy.spec.action_low), torch.tensor(policy.spec.action_high)
        changes: dict[bool, list[Tensor]] = {True: [], False: []}
        jerks = []
        for moments in episodes:
            actions = torch.stack([moment.action for moment in moments]).clamp(low, high)
            units = policy.action_normalizer.normalize(actions.to(policy.device)).cpu().double()
            lengths = units.diff(dim=0).norm(dim=-1)
            for length, moment in zip(lengths, moments[1:], strict=True):
                if not moment.starved:
                    changes[moment.seam].append(length)
            jerks.append(units.diff(n=3, dim=0).square().sum(-1) * (policy.spec.control_hz or 1.0) ** 6)
        steps = [moment for moments in episodes for moment in moments]
        return Execution(
            executor=executor,
            seam_jump=_mean(changes[True]),
            step_change=_mean(changes[False]),
            jerk=_mean(list(torch.cat(jerks))),
            starvation=sum(step.starved for step in steps) / len(steps),
            plans=sum(step.planned for step in steps) / len(episodes),
        )


def _mean(values: Sequence[Tensor]) -> float | None:
    return torch.stack(list(values)).mean().item() if values else None
