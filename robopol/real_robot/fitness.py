"""Whether new weights may take the place of others: what they would have said in situations that were recorded."""

import time
from typing import NamedTuple

import numpy as np
import torch

from robopol.data import Episodes
from robopol.export.export import ROWS, histories
from robopol.policies import Policy
from robopol.real_robot.chunk import Rejection
from robopol.real_robot.proposal import ProposalGate
from robopol.real_robot.robot import RobotConfig

_WARM = 3  # plans that are not timed


class Fitness(NamedTuple):
    """What a policy said of recorded observations.

    Attributes:
        refused: Share of its plans that would have been refused: not finite, or out of the range of actions.
        why: Why the first of them would have been; None if none was.
        p99: Time that a plan took, the 99th percentile, s.
    """

    refused: float
    why: Rejection | None
    p99: float


def fitness(policy: Policy, robot: RobotConfig, episodes: Episodes) -> Fitness:
    """Let a policy plan for recorded observations; no robot is moved.

    Args:
        policy: The policy.
        robot: Where it is to act; its gate judges the plans.
        episodes: What was recorded on it; see `robopol.real_robot.dataset.episodes_of`.

    Raises:
        ConfigError: If the episodes lack an observation that the policy looks at.
    """
    found, gate = histories(episodes, policy), ProposalGate(policy.spec, robot.gate)
    took, refusals = list[float](), list[Rejection]()
    for k in range(-_WARM, ROWS):
        obs = {key: value[max(k, 0)][None].to(policy.device) for key, value in found.items()}
        start = time.perf_counter()
        window = policy.plan(obs, 1, [torch.Generator().manual_seed(max(k, 0))])[0, 0].cpu()
        if k < 0:
            continue
        took.append(time.perf_counter() - start)
        said = gate.judge(window[policy.spec.n_obs_steps - 1 :].numpy())
        if isinstance(said, Rejection):
            refusals.append(said)
    return Fitness(len(refusals) / len(took), refusals[0] if refusals else None, float(np.percentile(took, 99)))
