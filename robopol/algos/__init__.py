"""Algorithms: one file each, its losses and its update, nothing else."""

from robopol.algos.algorithm import Algorithm, AlgorithmConfig

__all__ = ["Algorithm", "AlgorithmConfig"]
