"""A computation as a list of calls: what a policy does from observations and noise to its plan, and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Form(NamedTuple):
    """What is known of a tensor beforehand."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Value(NamedTuple):
    """A tensor of a graph, by its number."""

    number: int


class Call(NamedTuple):
    """One operation.

    Attributes:
        op: Its name, e.g. ``"aten.addmm.default"``.
        arguments: Every argument by name: a `Value`, None, a number, a bool, a string, a ``torch.dtype``, or a list of
            these.
        results: The tensors that it gives.
    """

    op: str
    arguments: dict[str, Any]
    results: tuple[Value, ...]


@dataclass
class Graph:
    """A computation without branches, on tensors whose shapes are known.

    Attributes:
        inputs: Name -> input.
        constants: The tensors that the computation brings along.
        calls: What is done, in order.
        forms: Shape and type of every tensor.
        output: The result.
    """

    inputs: dict[str, Value] = field(default_factory=dict)
    constants: dict[Value, Tensor] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    forms: dict[Value, Form] = field(default_factory=dict)
    output: Value = field(default_factory=lambda: Value(-1))

    def new(self, shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        """Return the value of a further tensor."""
        value = Value(len(self.forms))
        self.forms[value] = Form(tuple(shape), dtype)
        return value

    def prune(self) -> None:
        """Leave out what the output does not depend on; inputs stay."""
        needed, kept = {self.output}, []
        for call in reversed(self.calls):
            if needed.intersection(call.results):
                kept.append(call)
                needed.update(values_in(call.arguments))
        self.calls = kept[::-1]
        self.constants = {value: tensor for value, tensor in self.constants.items() if value in needed}


def values_in(argument: Any) -> list[Value]:
    """List the values in an argument, or in all arguments of a call."""
    found: list[Value] = []
    replaced(argument, lambda value: found.append(value))
    return found


def replaced(argument: Any, by: Callable[[Value], Any]) -> Any:
    """Return an argument, or all arguments of a call, with something else in place of every value."""
    if isinstance(argument, Value):
        return by(argument)
    if isinstance(argument, Mapping):
        return {name: replaced(item, by) for name, item in argument.items()}
    if isinstance(argument, list):
        return [replaced(item, by) for item in argument]
    return argument
