"""The engine of ONNX Runtime: one ONNX file, run on the CPU."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robopol.errors import CheckpointError, ConfigError, MissingExtraError
from robopol.export.graph import Graph, Value
from robopol.export.onnx_nodes import ONNX_TYPES, OPSET, Writer

MODEL = "policy.onnx"
IR_VERSION = 9  # the oldest that has the operation set, so that older runtimes read it
_LARGEST = 2**31 - 1  # bytes of a protocol buffer


def write(graph: Graph, folder: Path) -> None:
    """See `robopol.export.engine.Engine.write`."""
    _runtime()
    (folder / MODEL).write_bytes(serialized(graph))


def load(folder: Path, device: str, threads: int) -> "Session":
    """See `robopol.export.engine.Engine.load`."""
    return Session(folder / MODEL, threads)


def versions() -> dict[str, str]:
    """See `robopol.export.engine.Engine.versions`."""
    return {package: version(package) for package in ("onnx", "onnxruntime")}


def serialized(graph: Graph) -> bytes:
    """Return a graph as the bytes of an ONNX file.

    Raises:
        MissingExtraError: If onnx is not installed.
        ConfigError: If the graph has an operation that cannot be written, or is too large for one file.
    """
    try:
        from onnx import helper, numpy_helper
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "writing an ONNX file") from None

    def info(name: str, value: Value) -> Any:
        form = graph.forms[value]
        return helper.make_tensor_value_info(name, ONNX_TYPES[form.dtype], form.shape)

    written = Writer(graph)
    size = sum(array.nbytes for array in written.constants.values())
    if size > 0.99 * _LARGEST:
        raise ConfigError(f"the policy's weights are {size / 2**30:.1f} GiB, an ONNX file holds 2: use engine=torch")
    nodes = [helper.make_node(kind, take, give, **attributes) for kind, take, give, attributes in written.nodes]
    nodes.append(helper.make_node("Identity", [written.output], ["windows"]))
    body = helper.make_graph(
        nodes,
        "policy",
        [info(name, value) for name, value in graph.inputs.items()],
        [info("windows", graph.output)],
        [numpy_helper.from_array(array, name) for name, array in written.constants.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(body, opset_imports=opset, ir_version=IR_VERSION, producer_name="robopol")
    return bytes(model.SerializeToString())


class Session:
    """An ONNX file in ONNX Runtime. No library of custom operations is ever registered."""

    device = "cpu"

    def __init__(self, file: Path, threads: int) -> None:
        """Read and optimise the file.

        Raises:
            CheckpointError: If the runtime cannot read it.
        """
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # between plans others may work
        try:
            self._session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises classes of its own
            raise CheckpointError(f"ONNX Runtime cannot read {file}: {error}") from error

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See `robopol.export.engine.Runner.run`."""
        (windows,) = self._session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return torch.from_numpy(windows)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx", "an exported ONNX policy") from None
    return onnxruntime
