"""How good a policy is while it learns by acting; used by finetune.py and offline_to_online.py."""

import time
from collections.abc import Callable

from robopol.policies import Policy
from robopol.training.trainer import Trainer

POINTS = (0.01, 0.02, 0.05, *(share / 10 for share in range(1, 11)))
"""When a policy is evaluated after the first time, as shares of the steps: densely where it may fall."""


def followed(trainer: Trainer, steps: int, score: Callable[[Policy], float]) -> dict[str, list[float]]:
    """Run all phases of a trainer, and evaluate what it would deploy before the first step in its world and after it.

    Args:
        trainer: Its last phase acts, and those before it do not.
        steps: Environment steps of the last phase.
        score: Says how good a policy is: a function of the policy.

    Returns:
        For every evaluation the ``env_steps`` and ``updates`` done, the ``seconds`` of training, and the ``score``.
    """
    found: dict[str, list[float]] = {key: [] for key in ("env_steps", "updates", "seconds", "score")}

    def judge(seconds: float) -> None:
        policy = trainer.algo.deployed()
        assert isinstance(policy, Policy)
        learned = not found["updates"] or found["updates"][-1] < trainer.updates
        now = score(policy) if learned else found["score"][-1]
        for key, value in zip(found, (trainer.env_steps, trainer.updates, round(seconds, 1), now), strict=True):
            found[key].append(value)

    *before, phase = trainer.config.phases.values()
    spent, first = 0.0, 0
    for one in before:  # of records alone
        since, first = time.monotonic(), first + one.length
        while trainer.step < first:
            trainer.advance(one, first - one.length)
        spent += time.monotonic() - since
    assert trainer.collector is not None
    trainer.collector.begin()
    judge(spent)
    ahead = [share * steps for share in POINTS]
    while trainer.step < first + steps:
        since, learned = time.monotonic(), trainer.updates
        trainer.advance(phase, first)
        spent += time.monotonic() - since
        # what learns from rollouts is judged when it has learned from the one in which a point lies
        done = trainer.step - first if phase.rollout is None or trainer.updates > learned else 0
        if ahead and done >= ahead[0]:
            judge(spent)
            ahead = [point for point in ahead if point > done]
    return found
