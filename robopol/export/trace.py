"""Writes down what a policy does while it plans.

A plan is computed once, on real tensors, and every operation that depends on the observations or on the noise is
recorded. Whatever does not depend on them (weights, noise levels, embedded times) is a constant by then. What cannot be
written down as one fixed list of operations is noticed here, and refused in words.
"""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from robopol.data.episodes import is_image
from robopol.errors import ConfigError
from robopol.export.graph import Call, Graph, Value
from robopol.export.lowering import lower
from robopol.export.simplify import simplify
from robopol.policies import Policy
from robopol.policies.plan_only import PlanOnlyPolicy

NOISE = "noise"
"""Name of the input that takes the noise; observations have names of their own in front of it."""
OBSERVATION = "obs."
"""What stands in front of an observation's key in the name of its input."""

_ATEN = torch.ops.aten
_SAME = {_ATEN.alias, _ATEN.detach, _ATEN.lift_fresh}
_WHERE = {"device", "layout", "memory_format", "pin_memory"}
"""Arguments that say where and how a result lies in memory, which is the engine's own business."""
_SHAPES = {_ATEN.zeros_like, _ATEN.ones_like, _ATEN.full_like, _ATEN.new_zeros, _ATEN.new_ones, _ATEN.new_full}
"""Operations that look only at shapes: what they give is a constant."""


def trace(policy: Policy, batch: int) -> Graph:
    """Write down how a policy plans one window for each of some rows.

    Args:
        policy: The policy.
        batch: B, the number of rows.

    Returns:
        The graph. Its inputs are ``obs.KEY`` (B, To, ...) in environment units and ``noise`` (B, draws, ...), standard
        normal, in the order in which the policy draws it, if it draws any; its output the windows (B, Tp, A) in
        environment units.

    Raises:
        ConfigError: If the policy's plan is not one fixed list of operations; the message says why.
    """
    if isinstance(policy, PlanOnlyPolicy):
        raise ConfigError(f"there is nothing here to export: {policy.refusal}")
    if policy.goes_on:
        raise ConfigError(
            "the policy goes on from its last plan, which an artefact does not know: leave what looks at it "
            "(warm_start, real_time_chunking, inpainting) out"
        )
    spec = policy.spec
    acting = lower(copy.deepcopy(policy).cpu().float().eval())
    obs = {key: _example(key, (batch, spec.n_obs_steps, *shape)) for key, shape in spec.obs_shapes.items()}
    tape = Tape()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), torch.random.fork_rng(devices=[]):
        acting.plan(obs)  # whatever is checked or tabulated once is done outside
        with tape:
            for key, value in obs.items():
                tape.give(OBSERVATION + key, value)
            windows = acting.plan(obs)[:, 0]
    graph = tape.finish(windows)
    simplify(graph)
    return graph


def _example(key: str, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=torch.uint8) if is_image(key) else torch.zeros(shape)


class Tape(TorchDispatchMode):
    """Records the operations that depend on given tensors, as they are computed."""

    def __init__(self) -> None:
        """Begin with an empty graph."""
        super().__init__()
        self.graph = Graph()
        self._values = WeakTensorKeyDictionary()  # Tensor -> Value; None where its memory was written into elsewhere
        self._constants: dict[Any, Value] = {}
        self._captured: list[tuple[Tensor, int]] = []
        self._draws: list[Value] = []

    def give(self, name: str, tensor: Tensor) -> None:
        """Make a tensor an input."""
        self.graph.inputs[name] = self._track(tensor)

    def finish(self, output: Tensor) -> Graph:
        """Return the graph that computes a tensor.

        Raises:
            ConfigError: If it does not depend on what was given, or constants changed on the way.
        """
        if not self._known(output):
            raise ConfigError(
                "the plan does not depend on the observation, or is written into a tensor that did not: there is "
                "nothing to export"
            )
        if any(tensor._version != version for tensor, version in self._captured):
            raise ConfigError("the policy writes into its own weights or tables while it plans: it cannot be exported")
        self.graph.output = self._values[output]
        if self._draws:
            self._join_draws()
        self.graph.prune()
        return self.graph

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute an operation and record it if it depends on what was given."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            return self._draw(func, args, kwargs)
        arguments = _named(func, args, kwargs)
        if func.overloadpacket in _SHAPES or not any(
            self._known(leaf) for leaf in tree_leaves(list(arguments.values()))
        ):
            return func(*args, **kwargs)
        if _reads(func, arguments):
            raise ConfigError(
                f"what the policy computes next depends on values it has just computed ({func}): its plan is not one "
                "fixed list of operations and cannot be exported"
            )
        before = tree_map(self._value, arguments)  # of what is written into, the values before that
        result = func(*args, **kwargs)
        if func.overloadpacket in _SAME:
            self._values[result] = before["self"]
        elif func._schema.is_mutable:
            self._overwrite(func, args[0], before)
        else:
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.graph.calls.append(Call(str(func), before, tuple(self._track(tensor) for tensor in outputs)))
        return result

    def _known(self, leaf: Any) -> bool:
        """Say whether a tensor depends on what was given."""
        if not isinstance(leaf, Tensor) or leaf not in self._values:
            return False
        if self._values[leaf] is None:
            raise ConfigError("the policy writes into parts of tensors while it plans, which cannot be exported")
        return True

    def _value(self, leaf: Any) -> Any:
        """Return what stands in a call for an argument: a tensor's value, anything else as it is."""
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf in self._values:
            return self._values[leaf]
        key = (leaf.data_ptr(), leaf.dtype, tuple(leaf.shape), leaf.stride(), leaf._version)
        if key not in self._constants:
            value = self.graph.new(tuple(leaf.shape), leaf.dtype)
            self.graph.constants[value] = leaf
            self._constants[key] = value
            self._captured.append((leaf, leaf._version))
        return self._constants[key]

    def _track(self, tensor: Tensor) -> Value:
        value = self.graph.new(tuple(tensor.shape), tensor.dtype)
        self._values[tensor] = value
        return value

    def _overwrite(self, func: Any, target: Tensor, before: dict[str, Any]) -> None:
        """Record an operation in place as one that gives a new tensor."""
        functional = getattr(torch.ops.aten, func.overloadpacket.__name__.removesuffix("_"), None)
        if functional is None or func._overloadname not in functional.overloads() or "out" in before:
            raise ConfigError(f"the policy overwrites a tensor by {func}, which cannot be exported")
        memory = target.untyped_storage().data_ptr()
        for other in list(self._values.keys()):
            if other.untyped_storage().data_ptr() == memory:
                self._values[other] = None
        self.graph.calls.append(Call(str(getattr(functional, func._overloadname)), before, (self._track(target),)))

    def _draw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if func is not torch.ops.aten.randn.default:
            raise ConfigError(f"the policy draws by {func}; only standard normal noise can be an input of an export")
        drawn: Tensor = func(*args, **kwargs)
        self._draws.append(self._track(drawn))
        return drawn

    def _join_draws(self) -> None:
        """Make all draws, (B, 1, ...) or, of several proposals, (B, K, ...), parts of one input (B, draws, ...)."""
        graph, forms = self.graph, {self.graph.forms[drawn] for drawn in self._draws}
        if len(forms) > 1:
            raise ConfigError(
                "the policy draws noise of several shapes for one plan, and an export has one input for it: "
                "say policy.deterministic=true where the policy has it"
            )
        (rows, proposals, *shape), dtype = forms.pop()
        shape = shape if proposals == 1 else [proposals, *shape]
        noise = graph.inputs[NOISE] = graph.new((rows, len(self._draws), *shape), dtype)
        for i, drawn in enumerate(self._draws):
            if proposals == 1:
                arguments = {"self": noise, "dim": 1, "start": i, "end": i + 1, "step": 1}
                graph.calls.insert(i, Call("aten.slice.Tensor", arguments, (drawn,)))
            else:
                graph.calls.insert(i, Call("aten.select.int", {"self": noise, "dim": 1, "index": i}, (drawn,)))


def _named(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments of an operation by name, defaults included."""
    formal = func._schema.arguments
    named = {argument.name: argument.default_value for argument in formal if argument.has_default_value()}
    named |= {argument.name: value for argument, value in zip(formal, args, strict=False)} | kwargs
    return {name: value for name, value in named.items() if name not in _WHERE}


def _reads(func: Any, arguments: dict[str, Any]) -> bool:
    """Say whether values decide what comes out or how much of it."""
    if func is torch.ops.aten.index.Tensor:  # with numbers it gathers, with a mask it chooses
        return any(index is not None and index.dtype == torch.bool for index in arguments["indices"])
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags
