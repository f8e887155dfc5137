"""Policies as artefacts for inference engines: the whole sampling loop in one call."""

from robopol.export.exported import ExportedPolicy, load_exported

__all__ = ["ExportedPolicy", "load_exported"]
