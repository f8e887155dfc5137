"""Objectives: what a plan is judged by, one a file; they rank proposals and guide walks."""

from robopol.steering.objectives.keep_away import Box, Disc, KeepAwayConfig
from robopol.steering.objectives.motion import Motion
from robopol.steering.objectives.objective import Objective, ObjectiveConfig
from robopol.steering.objectives.point import PointConfig
from robopol.steering.objectives.sketch import SketchConfig
from robopol.steering.objectives.smoothness import SmoothnessConfig
from robopol.steering.objectives.stl import STLConfig
from robopol.steering.objectives.weighted_sum import WeightedSumConfig
from robopol.steering.objectives.workspace import WorkspaceConfig

__all__ = [
    "Box",
    "Disc",
    "KeepAwayConfig",
    "Motion",
    "Objective",
    "ObjectiveConfig",
    "PointConfig",
    "STLConfig",
    "SketchConfig",
    "SmoothnessConfig",
    "WeightedSumConfig",
    "WorkspaceConfig",
]
