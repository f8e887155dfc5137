"""Worlds that are stepped by native threads, with the results of stepping them one after the other."""

from robopol.envs.native.library import why_not

__all__ = ["why_not"]
