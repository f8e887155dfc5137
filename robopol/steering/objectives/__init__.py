"""Objectives: what a plan is judged by, one a file; they rank proposals and guide walks."""

from robopol.steering.objectives.objective import Objective, ObjectiveConfig

__all__ = ["Objective", "ObjectiveConfig"]
