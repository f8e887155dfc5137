"""Rollouts of actors in environments, and what they show."""

from robopol.evaluation.actors import Actor, ExpertActor
from robopol.evaluation.execution import Execution, Monitor
from robopol.evaluation.protocol import SEED0, Evaluation, evaluate
from robopol.evaluation.recorder import Recorder
from robopol.evaluation.rollout import Outcome, rollout
from robopol.evaluation.tuning import Tuning, tune

__all__ = [
    "SEED0",
    "Actor",
    "Evaluation",
    "Execution",
    "ExpertActor",
    "Monitor",
    "Outcome",
    "Recorder",
    "Tuning",
    "evaluate",
    "rollout",
    "tune",
]
