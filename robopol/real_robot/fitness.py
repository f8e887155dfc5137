"""Whether new weights may take the place of others on a robot: what they would have said in what was recorded of it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopol.data import Episodes
from robopol.errors import ConfigError
from robopol.evaluation import fitness as generic
from robopol.evaluation.fitness import Fitness
from robopol.policies import Policy
from robopol.real_robot.chunk import Rejection
from robopol.real_robot.dataset import episodes_of
from robopol.real_robot.proposal import ProposalGate
from robopol.real_robot.robot import RobotConfig

NEWEST = 20
"""Recorded episodes that new weights are tried on."""


class Trial(NamedTuple):
    """What came of trying a policy on a robot's records.

    Attributes:
        fitness: What it said.
        allowed: Longest time that a plan may take, s: half of the time that one is executed, and what the gate takes.
        episodes: How many episodes it was tried on.
    """

    fitness: Fitness
    allowed: float
    episodes: int

    @property
    def fault(self) -> str:
        """In words why the policy is not to act; empty if it may."""
        return self.fitness.fault(self.allowed)


def fitness(policy: Policy, robot: RobotConfig, episodes: Episodes) -> Fitness:
    """Let a policy plan for recorded observations; no robot is moved.

    Args:
        policy: The policy.
        robot: Where it is to act; its gate judges the plans.
        episodes: What was recorded on it; see `robopol.real_robot.dataset.episodes_of`.

    Raises:
        ConfigError: If the episodes lack an observation that the policy looks at.
    """
    gate = ProposalGate(policy.spec, robot.gate)

    def judge(actions: NDArray[np.float32]) -> str:
        found = gate.judge(actions)
        return found.code.name.lower().replace("_", " ") if isinstance(found, Rejection) else ""

    return generic.fitness(policy, episodes, judge)


def try_on(policy: Policy, robot: RobotConfig, executed: int, folder: str | Path) -> Trial:
    """Let a policy plan for what was recorded in a folder, the newest episodes of it.

    Args:
        policy: The policy.
        robot: Where it is to act.
        executed: Actions of a plan after which the next is asked for.
        folder: What `robopol deploy record=` wrote.

    Raises:
        ConfigError: If there are no episodes, or they lack an observation that the policy looks at.
        DataError: If an episode is no dataset.
    """
    recorded = sorted(path.parent for path in Path(folder).glob("*/episode.json"))[-NEWEST:]
    if not recorded:
        raise ConfigError(f"{folder} has no recorded episodes: record some by robopol deploy record={folder}")
    allowed = min(generic.in_time(policy.spec, executed), robot.gate.max_latency)
    return Trial(fitness(policy, robot, episodes_of(recorded)), allowed, len(recorded))
