"""robopol: robot policies trained from demonstrations, made better, and put on real arms."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from robopol.data import load_episodes
    from robopol.envs import make_env
    from robopol.evaluation import evaluate
    from robopol.loading import load_policy

# The public functions load on first use: torch alone takes over a second to import.
_LAZY = {
    "evaluate": "robopol.evaluation",
    "load_episodes": "robopol.data",
    "load_policy": "robopol.loading",
    "make_env": "robopol.envs",
}

__all__ = ["__version__", "evaluate", "load_episodes", "load_policy", "make_env"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'robopol' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
