"""How the plans of a policy are executed: when it plans again, and what is done with several plans or none."""

from robopol.execution.executor import BLOCK, Decision, Executor, ExecutorConfig, check_period
from robopol.execution.inpainting import InpaintingConfig
from robopol.execution.open_loop import OpenLoopConfig
from robopol.execution.real_time_chunking import RealTimeChunkingConfig
from robopol.execution.receding_horizon import RecedingHorizon, RecedingHorizonConfig
from robopol.execution.temporal_ensemble import TemporalEnsemble, TemporalEnsembleConfig
from robopol.execution.warm_start import WarmStartConfig

__all__ = [
    "BLOCK",
    "Decision",
    "Executor",
    "ExecutorConfig",
    "InpaintingConfig",
    "OpenLoopConfig",
    "RealTimeChunkingConfig",
    "RecedingHorizon",
    "RecedingHorizonConfig",
    "TemporalEnsemble",
    "TemporalEnsembleConfig",
    "WarmStartConfig",
    "check_period",
]
