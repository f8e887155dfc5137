"""What an engine is: it writes a graph into a folder, and runs what it wrote."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from torch import Tensor

from robopol.export.graph import Graph

EngineName = Literal["torch", "onnx", "openvino"]

ENGINES: dict[EngineName, str] = {
    "torch": "robopol.export.torch_engine",
    "onnx": "robopol.export.onnx_engine",
    "openvino": "robopol.export.openvino_engine",
}
"""Name -> module. The table is closed: a file can name an engine, and cause no other import."""

LARGE = 1_000_000
"""Weights from which on several threads are used: below, they fit into one core's cache."""


class Runner(Protocol):
    """An artefact that is ready to run."""

    device: str
    """The torch device on which it takes observations and noise."""

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return windows (B, Tp, A), B as it was exported.

        Args:
            inputs: Every input by name, of the shapes and types that were exported.
        """


class Engine(Protocol):
    """A module that writes and runs artefacts."""

    def write(self, graph: Graph, folder: Path) -> None:
        """Write a graph.

        Args:
            graph: What is to be computed.
            folder: An existing folder.

        Raises:
            MissingExtraError: If the engine is not installed.
            ConfigError: If it has no word for an operation.
        """

    def load(self, folder: Path, device: str, threads: int) -> Runner:
        """Make what was written ready to run.

        Args:
            folder: The folder.
            device: A torch device; an engine that runs on the CPU only does so.
            threads: Threads within an operation.

        Raises:
            MissingExtraError: If the engine is not installed.
            CheckpointError: If a file is damaged.
        """

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that it is made of."""


def engine(name: EngineName) -> Engine:
    """Return an engine by its name."""
    return cast(Any, importlib.import_module(ENGINES[name]))
