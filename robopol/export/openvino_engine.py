"""The engine of OpenVINO: its own pair of files, made from ONNX, run on the CPU."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robopol.errors import CheckpointError, MissingExtraError
from robopol.export.graph import Graph
from robopol.export.onnx_engine import serialized

MODEL = "policy.xml"  # its weights are in policy.bin


def write(graph: Graph, folder: Path) -> None:
    """See `robopol.export.engine.Engine.write`."""
    openvino = _runtime()
    model = openvino.Core().read_model(serialized(graph))
    openvino.save_model(model, folder / MODEL, compress_to_fp16=False)  # by default it halves the weights' precision


def load(folder: Path, device: str, threads: int) -> "Compiled":
    """See `robopol.export.engine.Engine.load`."""
    return Compiled(folder / MODEL, threads)


def versions() -> dict[str, str]:
    """See `robopol.export.engine.Engine.versions`."""
    return {package: version(package) for package in ("onnx", "openvino")}


class Compiled:
    """A model compiled for this CPU. No extension library is ever added."""

    device = "cpu"

    def __init__(self, file: Path, threads: int) -> None:
        """Read and compile.

        Raises:
            CheckpointError: If OpenVINO cannot read it.
        """
        openvino = _runtime()
        # float32, or a CPU that has bfloat16 computes in that; and without its fused loops (SNIPPETS_MODE), which crash
        # the process in float32 on one thread (2026.4)
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
            "SNIPPETS_MODE": "DISABLE",
        }
        try:
            core = openvino.Core()
            self._request = core.compile_model(core.read_model(file), "CPU", options).create_infer_request()
        except Exception as error:  # RuntimeError, and whatever the reader of a damaged file raises
            raise CheckpointError(f"OpenVINO cannot read {file}: {error}") from error

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See `robopol.export.engine.Runner.run`."""
        arrays = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
        windows = self._request.infer(arrays, share_inputs=True)[0]
        return torch.from_numpy(windows)


def _runtime() -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino", "openvino", "an exported OpenVINO policy") from None
    return openvino
