"""Rollouts of actors in environments, and what they show."""

from robopol.evaluation.actors import ExpertActor, PolicyActor
from robopol.evaluation.protocol import SEED0, Evaluation, evaluate
from robopol.evaluation.recorder import Recorder
from robopol.evaluation.rollout import Outcome, rollout

__all__ = ["SEED0", "Evaluation", "ExpertActor", "Outcome", "PolicyActor", "Recorder", "evaluate", "rollout"]
