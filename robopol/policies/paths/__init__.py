"""Probability paths between noise and data, one a file."""

from robopol.policies.paths.path import Level, Path, PathConfig

__all__ = ["Level", "Path", "PathConfig"]
