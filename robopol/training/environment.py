"""Where a run takes place: versions, processor, graphics card and commit."""

import importlib.metadata
import platform
import time
from pathlib import Path
from typing import Any

import torch

from robopol import __version__
from robopol.files import git_state


def environment() -> dict[str, Any]:
    """Describe where a run takes place.

    Returns:
        JSON types: ``created`` (UTC), ``versions`` (package -> version), ``python``, ``platform``, ``cpu``,
        ``gpu`` (None without one) and ``git``: ``commit`` and ``dirty`` of the working directory, or None if
        it is not a git checkout.
    """
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "robopol": __version__,
            "torch": torch.__version__,
            **{name: importlib.metadata.version(name) for name in ("numpy", "mujoco", "gymnasium")},
        },
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git": git_state(),
    }


def cpu_model() -> str:
    """Return the name of the processor, or of its architecture if the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
