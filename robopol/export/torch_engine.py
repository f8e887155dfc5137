"""The engine of torch: the graph as a list of aten operations, played back.

``graph.json`` names the operations, ``constants.safetensors`` holds the numbers. The archives that torch itself
writes (``torch.export.save``, TorchScript, AOTInductor) are not used: loading them unpickles, or runs machine code from
the file. Here a file can call nothing but the operations of `robopol.export.onnx_nodes.RULES`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from robopol.errors import CheckpointError, ConfigError
from robopol.export.graph import Call, Graph, Value, replaced, values_in
from robopol.export.onnx_nodes import RULES
from robopol.files import write_json

GRAPH, CONSTANTS = "graph.json", "constants.safetensors"


def write(graph: Graph, folder: Path) -> None:
    """See `robopol.export.engine.Engine.write`."""
    unknown = sorted({call.op for call in graph.calls} - RULES.keys())
    if unknown:
        raise ConfigError(f"the policy uses {', '.join(unknown)}, which robopol does not export")
    save_file({str(v.number): t.detach().clone().contiguous() for v, t in graph.constants.items()}, folder / CONSTANTS)
    calls = [[call.op, _plain(call.arguments), [value.number for value in call.results]] for call in graph.calls]
    inputs = {name: value.number for name, value in graph.inputs.items()}
    write_json(folder / GRAPH, {"inputs": inputs, "calls": calls, "output": graph.output.number})


def load(folder: Path, device: str, threads: int) -> "Player":
    """See `robopol.export.engine.Engine.load`; the threads are those of torch."""
    try:
        tree = json.loads((folder / GRAPH).read_text(encoding="utf-8"))
        constants = load_file(folder / CONSTANTS, device=device)
        calls = [
            Call(op, _restored(arguments), tuple(Value(int(number)) for number in results))
            for op, arguments, results in tree["calls"]
        ]
        inputs = {str(name): Value(int(number)) for name, number in tree["inputs"].items()}
        found = {Value(int(number)): tensor for number, tensor in constants.items()}
        return Player(inputs, found, calls, Value(int(tree["output"])), device)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} does not hold a graph of robopol's: {error}") from error


def versions() -> dict[str, str]:
    """See `robopol.export.engine.Engine.versions`."""
    return {"torch": torch.__version__}


class Player:
    """Plays a graph back."""

    def __init__(
        self,
        inputs: Mapping[str, Value],
        constants: Mapping[Value, Tensor],
        calls: list[Call],
        output: Value,
        device: str,
    ) -> None:
        """Look every operation up.

        Raises:
            ValueError: If there is one that robopol does not export, or one reads what no other has given.
        """
        self.device, self.inputs, self.output = device, inputs, output
        known = {*inputs.values(), *constants}
        self._program = []
        last_use = {value: i for i, call in enumerate(calls) for value in values_in(call.arguments)}
        for i, call in enumerate(calls):
            missing = set(values_in(call.arguments)) - known
            if call.op not in RULES or missing:
                raise ValueError(f"call {i} is {call.op}, on values that {'no call gives' if missing else 'exist'}")
            known |= set(call.results)
            _, name, overload = call.op.split(".")
            function = getattr(getattr(torch.ops.aten, name), overload)
            dead = [value for value in values_in(call.arguments) if last_use[value] == i and value not in constants]
            self._program.append((function, *_laid_out(function, call.arguments), call.results, dead))
        if output not in known:
            raise ValueError("no call gives the output")
        self._constants = dict(constants)

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See `robopol.export.engine.Runner.run`."""
        values: dict[Value, Any] = {value: inputs[name] for name, value in self.inputs.items()}
        values |= self._constants
        for function, direct, deep, arguments, named, results, dead in self._program:
            for place, value in direct:
                arguments[place] = values[value]
            for place, argument in deep:
                arguments[place] = replaced(argument, values.__getitem__)
            given = function(*arguments, **named)
            if len(results) == 1 and isinstance(given, Tensor):
                values[results[0]] = given
            else:
                values.update(zip(results, given, strict=False))
            for value in dead:
                values.pop(value, None)
        found: Tensor = values[self.output]
        return found


def _laid_out(function: Any, arguments: Mapping[str, Any]) -> tuple[list[Any], list[Any], list[Any], dict[str, Any]]:
    """Return which arguments are values, which hold values, and all of them by place and by name."""
    formal = function._schema.arguments
    ordered = [arguments.get(argument.name, argument.default_value) for argument in formal if not argument.kwarg_only]
    named = {a.name: arguments[a.name] for a in formal if a.kwarg_only and a.name in arguments}
    return (
        [(place, value) for place, value in enumerate(ordered) if isinstance(value, Value)],
        [(place, value) for place, value in enumerate(ordered) if isinstance(value, list) and values_in(value)],
        ordered,
        named,
    )


def _plain(argument: Any) -> Any:
    """Return an argument as JSON."""
    if isinstance(argument, Value):
        return {"value": argument.number}
    if isinstance(argument, torch.dtype):
        return {"dtype": str(argument).removeprefix("torch.")}
    if isinstance(argument, dict):
        return {name: _plain(item) for name, item in argument.items()}
    if isinstance(argument, list | tuple):
        return [_plain(item) for item in argument]
    return argument


def _restored(argument: Any) -> Any:
    """Return an argument from JSON."""
    if isinstance(argument, list):
        return [_restored(item) for item in argument]
    if not isinstance(argument, dict):
        return argument
    if argument.keys() == {"value"}:
        return Value(int(argument["value"]))
    if argument.keys() == {"dtype"}:
        found = getattr(torch, argument["dtype"])
        if not isinstance(found, torch.dtype):
            raise ValueError(f"{argument['dtype']} is not a type of numbers")
        return found
    return {name: _restored(item) for name, item in argument.items()}
