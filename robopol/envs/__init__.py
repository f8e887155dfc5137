"""Worlds: a UR5e at a table with tasks on it, gymnasium environments, and batches of them.

Importing this registers robopol's ids with gymnasium; MuJoCo is imported when an environment is made.
"""

from robopol.envs.domain import Domain
from robopol.envs.make import list_envs, make_env, make_expert, register
from robopol.envs.spec import EnvSpec, TaskOptions
from robopol.envs.vector import StepResult, VectorEnv

__all__ = [
    "Domain",
    "EnvSpec",
    "StepResult",
    "TaskOptions",
    "VectorEnv",
    "list_envs",
    "make_env",
    "make_expert",
]

register()
