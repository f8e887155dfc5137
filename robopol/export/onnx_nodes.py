"""Every operation that a policy is made of, in the words of ONNX."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopol.errors import ConfigError
from robopol.export.graph import Call, Graph, Value, values_in

OPSET = 18
ONNX_TYPES = {torch.float32: 1, torch.float64: 1, torch.float16: 1, torch.bfloat16: 1}  # computed in float32
ONNX_TYPES |= {torch.uint8: 2, torch.int32: 6, torch.int64: 7, torch.bool: 9}

Rule = Callable[..., str | list[str]]
RULES: dict[str, Rule] = {}
"""Operation -> what writes it down: (writer, its arguments by name) -> the name of its result, or of each."""


class Writer:
    """Collects the nodes of an ONNX graph."""

    def __init__(self, graph: Graph) -> None:
        """Write down a graph.

        Raises:
            ConfigError: If it has an operation without a rule.
        """
        self.nodes: list[tuple[str, list[str], str | list[str], dict[str, Any]]] = []
        self.constants: dict[str, np.ndarray] = {}
        self._known: dict[Any, str] = {}
        self._names: dict[Value, str] = {value: name for name, value in graph.inputs.items()}
        self.graph = graph
        self.used = {value for call in graph.calls for value in values_in(call.arguments)}
        unknown = sorted({call.op for call in graph.calls if call.op not in RULES})
        if unknown:
            raise ConfigError(f"the policy uses {', '.join(unknown)}, which robopol does not export")
        for call in graph.calls:
            self._call(call)
        self.output = self.name(graph.output)

    def _call(self, call: Call) -> None:
        arguments = {("self_" if name == "self" else name): value for name, value in call.arguments.items()}
        named = RULES[call.op](self, call, **arguments)
        names = named if isinstance(named, list) else [named]
        self._names |= dict(zip(call.results, names, strict=False))

    def name(self, value: Any, like: torch.dtype | None = None) -> str:
        """Return the name of a value, or of the constant that a number is.

        Args:
            value: A value or a number.
            like: Type of the number; a value of another type is cast to it.
        """
        if not isinstance(value, Value):
            return self.constant(np.array(value, dtype=_numpy(like or torch.float32)))
        if value not in self._names:
            self._names[value] = self.constant(_array(self.graph.constants[value]))
        name, dtype = self._names[value], self.graph.forms[value].dtype
        return (
            name
            if like is None or ONNX_TYPES[dtype] == ONNX_TYPES[like]
            else self.node("Cast", name, to=ONNX_TYPES[like])
        )

    def constant(self, array: Any) -> str:
        """Return the name of a constant; equal small ones are one."""
        array = np.asarray(array, order="C")
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 64 else id(array)
        if key not in self._known:
            self._known[key] = f"c{len(self.constants)}"
            self.constants[self._known[key]] = array
        return self._known[key]

    def ints(self, *numbers: int) -> str:
        """Return the name of a list of integers."""
        return self.constant(np.array(numbers, dtype=np.int64))

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or the list of them."""
        names = [f"v{len(self.nodes)}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self.nodes.append((kind, list(inputs), names, attributes))
        return names[0] if outputs == 1 else names

    def shape(self, value: Value) -> tuple[int, ...]:
        """Return the shape of a value."""
        return self.graph.forms[value].shape

    def dtype(self, value: Value) -> torch.dtype:
        """Return the type of a value."""
        return self.graph.forms[value].dtype


def _numpy(dtype: torch.dtype) -> type:
    return {1: np.float32, 2: np.uint8, 6: np.int32, 7: np.int64, 9: np.bool_}[ONNX_TYPES[dtype]]


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy().astype(_numpy(tensor.dtype), copy=False)


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Say that a function writes some operations of aten."""

    def register(function: Rule) -> Rule:
        RULES.update({f"aten.{op}": function for op in ops})
        return function

    return register


def _plain(kind: str) -> Rule:
    return lambda w, call, self_, **_: w.node(kind, w.name(self_))


for _op, _kind in {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "neg": "Neg", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
    "sin": "Sin", "cos": "Cos", "erf": "Erf", "abs": "Abs", "reciprocal": "Reciprocal",
}.items():  # fmt: skip
    RULES[f"aten.{_op}.default"] = _plain(_kind)


@rule("alias.default", "clone.default", "contiguous.default")
def _same(w: Writer, call: Call, self_: Value, **_: Any) -> str:
    return w.name(self_)


@rule("_to_copy.default")
def _cast(w: Writer, call: Call, self_: Value, **_: Any) -> str:
    return w.name(self_, w.dtype(call.results[0]))


def _binary(kind: str) -> Rule:
    def write(w: Writer, call: Call, self_: Any, other: Any, alpha: float = 1, **_: Any) -> str:
        dtype = w.dtype(call.results[0])
        right = w.name(other, dtype)
        if alpha != 1:
            right = (
                w.node("Mul", right, w.name(alpha, dtype)) if isinstance(other, Value) else w.name(alpha * other, dtype)
            )
        return str(w.node(kind, w.name(self_, dtype), right))

    return write


for _op, _kind in {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}.items():
    RULES[f"aten.{_op}.Tensor"] = RULES[f"aten.{_op}.Scalar"] = _binary(_kind)


@rule("rsub.Scalar")
def _rsub(w: Writer, call: Call, self_: Value, other: float, alpha: float, **_: Any) -> str:
    left = self_ if alpha == 1 else None
    scaled = w.name(self_) if left is not None else w.node("Mul", w.name(self_), w.name(alpha))
    return str(w.node("Sub", w.name(other), scaled))


@rule("addcmul.default")
def _addcmul(w: Writer, call: Call, self_: Value, tensor1: Value, tensor2: Value, value: float, **_: Any) -> str:
    product = w.node("Mul", w.name(tensor1), w.name(tensor2))
    return str(w.node("Add", w.name(self_), product if value == 1 else w.node("Mul", product, w.name(value))))


@rule("lerp.Scalar")
def _lerp(w: Writer, call: Call, self_: Value, end: Value, weight: float) -> str:
    start = w.name(self_)
    return str(w.node("Add", start, w.node("Mul", w.node("Sub", w.name(end), start), w.name(float(weight)))))


@rule("pow.Tensor_Scalar")
def _pow(w: Writer, call: Call, self_: Value, exponent: float, **_: Any) -> str:
    name = w.name(self_)
    return str(w.node("Mul", name, name) if exponent == 2 else w.node("Pow", name, w.name(float(exponent))))


@rule("rsqrt.default")
def _rsqrt(w: Writer, call: Call, self_: Value, **_: Any) -> str:
    return str(w.node("Reciprocal", w.node("Sqrt", w.name(self_))))


@rule("clamp.default")
def _clamp(w: Writer, call: Call, self_: Value, min: float | None, max: float | None, **_: Any) -> str:
    bounds = ["" if bound is None else w.name(float(bound)) for bound in (min, max)]
    return str(w.node("Clip", w.name(self_), *bounds))


@rule("nan_to_num.default")
def _nan_to_num(
    w: Writer, call: Call, self_: Value, nan: float | None, posinf: float | None, neginf: float | None
) -> str:
    limits, found = np.finfo(np.float32), w.name(self_)
    for sign, wanted, default in ((1, posinf, limits.max), (-1, neginf, limits.min)):
        value = w.name(float(np.clip(default if wanted is None else wanted, limits.min, limits.max)))
        which = w.node("IsInf", found, detect_positive=int(sign > 0), detect_negative=int(sign < 0))
        found = w.node("Where", which, value, found)
    return str(w.node("Where", w.node("IsNaN", found), w.name(nan or 0.0), found))


@rule("threshold_backward.default")
def _threshold_backward(w: Writer, call: Call, grad_output: Value, self_: Value, threshold: float) -> str:
    above = w.node("Greater", w.name(self_), w.name(float(threshold)))
    return str(w.node("Where", above, w.name(grad_output), w.name(0.0)))


def _alike(w: Writer, self_: Value, other: Any) -> Any:
    """Return what something is compared with; it must not change when it is made of the same type."""
    whole = not w.dtype(self_).is_floating_point
    if whole and (w.dtype(other).is_floating_point if isinstance(other, Value) else other != int(other)):
        raise ConfigError("whole numbers are compared with fractions, which cannot be written here: use engine=torch")
    return other


@rule("eq.Tensor", "eq.Scalar")
def _equal(w: Writer, call: Call, self_: Value, other: Any, **_: Any) -> str:
    return str(w.node("Equal", w.name(self_), w.name(_alike(w, self_, other), w.dtype(self_))))


@rule("ge.Scalar")
def _at_least(w: Writer, call: Call, self_: Value, other: float) -> str:
    return str(w.node("GreaterOrEqual", w.name(self_), w.name(_alike(w, self_, other), w.dtype(self_))))


@rule("lt.Scalar")
def _below(w: Writer, call: Call, self_: Value, other: float) -> str:
    return str(w.node("Less", w.name(self_), w.name(_alike(w, self_, other), w.dtype(self_))))


@rule("gt.Tensor")
def _above(w: Writer, call: Call, self_: Value, other: Value) -> str:
    return str(w.node("Greater", w.name(self_), w.name(other)))


@rule("minimum.default")
def _smaller(w: Writer, call: Call, self_: Value, other: Value) -> str:
    return str(w.node("Min", w.name(self_), w.name(other)))


@rule("maximum.default")
def _greater(w: Writer, call: Call, self_: Value, other: Value) -> str:
    return str(w.node("Max", w.name(self_), w.name(other)))


@rule("where.self")
def _where(w: Writer, call: Call, condition: Value, self_: Value, other: Value) -> str:
    dtype, chosen = w.dtype(call.results[0]), w.name(condition)
    if dtype == torch.bool:  # ONNX Runtime chooses among numbers only
        rest = w.node("And", w.node("Not", chosen), w.name(other))
        return str(w.node("Or", w.node("And", chosen, w.name(self_)), rest))
    return str(w.node("Where", chosen, w.name(self_, dtype), w.name(other, dtype)))


@rule("any.dim")
def _any(w: Writer, call: Call, self_: Value, dim: int, keepdim: bool) -> str:
    found = w.node("ReduceMax", w.name(self_, torch.int32), w.ints(dim), keepdims=int(keepdim))
    return str(w.node("Cast", found, to=ONNX_TYPES[torch.bool]))


@rule("remainder.Scalar")
def _remainder(w: Writer, call: Call, self_: Value, other: float, **_: Any) -> str:
    if w.dtype(self_).is_floating_point:
        raise ConfigError("a remainder of fractions cannot be written for this engine: use engine=torch")
    return str(w.node("Mod", w.name(self_), w.name(other, w.dtype(self_))))


@rule("silu.default")
def _silu(w: Writer, call: Call, self_: Value, **_: Any) -> str:
    return str(w.node("Mul", w.name(self_), w.node("Sigmoid", w.name(self_))))


@rule("mish.default")
def _mish(w: Writer, call: Call, self_: Value, **_: Any) -> str:
    return str(w.node("Mul", w.name(self_), w.node("Tanh", w.node("Softplus", w.name(self_)))))


@rule("elu.default")
def _elu(w: Writer, call: Call, self_: Value, alpha: float, **_: Any) -> str:
    return str(w.node("Elu", w.name(self_), alpha=float(alpha)))


@rule("softplus.default")
def _softplus(w: Writer, call: Call, self_: Value, beta: float, threshold: float) -> str:
    if (beta, threshold) != (1, 20):
        raise ConfigError("a softplus of another slope cannot be written for this engine: use engine=torch")
    return str(w.node("Softplus", w.name(self_)))


@rule("gelu.default")
def _gelu(w: Writer, call: Call, self_: Value, approximate: str, **_: Any) -> str:
    name = w.name(self_)
    if approximate == "tanh":
        cubic = w.node("Mul", w.node("Mul", name, name), name)
        inner = w.node("Add", name, w.node("Mul", cubic, w.name(0.044715)))
        gate = w.node("Tanh", w.node("Mul", inner, w.name(math.sqrt(2 / math.pi))))
    else:
        gate = w.node("Erf", w.node("Mul", name, w.name(math.sqrt(0.5))))
    return str(w.node("Mul", w.node("Mul", name, w.node("Add", gate, w.name(1.0))), w.name(0.5)))


# ------------------------------------------------------------------------------------------------------ products


@rule("addmm.default")
def _addmm(w: Writer, call: Call, self_: Value, mat1: Value, mat2: Value, beta: float, alpha: float, **_: Any) -> str:
    return str(w.node("Gemm", w.name(mat1), w.name(mat2), w.name(self_), alpha=float(alpha), beta=float(beta)))


@rule("mm.default", "bmm.default")
def _mm(w: Writer, call: Call, self_: Value, mat2: Value, **_: Any) -> str:
    return str(w.node("MatMul", w.name(self_), w.name(mat2)))


@rule("baddbmm.default")
def _baddbmm(w: Writer, call: Call, self_: Value, batch1: Value, batch2: Value, beta: float, alpha: float) -> str:
    if (beta, alpha) != (1, 1):
        raise ConfigError("a scaled batched product cannot be written for this engine: use engine=torch")
    return str(w.node("Add", w.node("MatMul", w.name(batch1), w.name(batch2)), w.name(self_)))


@rule("convolution.default")
def _convolution(
    w: Writer,
    call: Call,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    groups: int,
    **_: Any,
) -> str:
    if transposed:
        raise ConfigError("a transposed convolution of torch cannot be written for this engine: use engine=torch")
    inputs = [w.name(input), w.name(weight)] + ([] if bias is None else [w.name(bias)])
    sizes: dict[str, Any] = {"strides": list(stride), "pads": [*padding, *padding], "dilations": list(dilation)}
    return str(w.node("Conv", *inputs, **sizes, group=groups))


@rule("max_pool2d_with_indices.default")
def _max_pool(
    w: Writer, call: Call, self_: Value, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> list[str]:
    def both(sizes: Any) -> list[int]:
        return list(sizes) * (2 // len(sizes))

    sizes: dict[str, Any] = {"kernel_shape": both(kernel_size), "strides": both(stride or kernel_size)}
    sizes |= {"pads": both(padding) * 2, "dilations": both(dilation), "ceil_mode": int(ceil_mode)}
    return [w.node("MaxPool", w.name(self_), **sizes)]


# -------------------------------------------------------------------------------------------------------- shapes


@rule("view.default", "_unsafe_view.default", "reshape.default")
def _view(w: Writer, call: Call, self_: Value, **_: Any) -> str:
    shape = w.shape(call.results[0])
    return w.name(self_) if shape == w.shape(self_) else str(w.node("Reshape", w.name(self_), w.ints(*shape)))


@rule("squeeze.dim", "squeeze.dims", "squeeze.default", "unsqueeze.default")
def _squeeze(w: Writer, call: Call, self_: Value, **_: Any) -> str:
    return _view(w, call, self_)  # type: ignore[return-value]


@rule("expand.default")
def _expand(w: Writer, call: Call, self_: Value, **_: Any) -> str:
    shape = w.shape(call.results[0])
    return w.name(self_) if shape == w.shape(self_) else str(w.node("Expand", w.name(self_), w.ints(*shape)))


@rule("permute.default")
def _permute(w: Writer, call: Call, self_: Value, dims: Sequence[int], **_: Any) -> str:
    shape = w.shape(self_)
    order = [dim % len(shape) for dim in dims]
    kept = [dim for dim in order if shape[dim] > 1]
    if kept == sorted(kept):  # axes of length one move for free
        return _view(w, call, self_)  # type: ignore[return-value]
    return str(w.node("Transpose", w.name(self_), perm=order))


@rule("transpose.int")
def _transpose(w: Writer, call: Call, self_: Value, dim0: int, dim1: int, **_: Any) -> str:
    order = list(range(len(w.shape(self_))))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return str(_permute(w, call, self_, order))


@rule("t.default")
def _t(w: Writer, call: Call, self_: Value, **_: Any) -> str:
    return str(_permute(w, call, self_, list(range(len(w.shape(self_))))[::-1]))


@rule("cat.default")
def _cat(w: Writer, call: Call, tensors: Sequence[Value], dim: int, **_: Any) -> str:
    dtype = w.dtype(call.results[0])
    return str(w.node("Concat", *(w.name(tensor, dtype) for tensor in tensors), axis=dim))


@rule("stack.default")
def _stack(w: Writer, call: Call, tensors: Sequence[Value], dim: int, **_: Any) -> str:
    axis = dim % len(w.shape(call.results[0]))
    return str(w.node("Concat", *(w.node("Unsqueeze", w.name(t), w.ints(axis)) for t in tensors), axis=axis))


@rule("slice.Tensor")
def _slice(w: Writer, call: Call, self_: Value, dim: int, start: Any, end: Any, step: int, **_: Any) -> str:
    size = w.shape(self_)[dim]
    first, last, _step = slice(start, end).indices(size)
    if (first, last, step) == (0, size, 1):
        return w.name(self_)
    return str(w.node("Slice", w.name(self_), w.ints(first), w.ints(last), w.ints(dim), w.ints(step)))


@rule("select.int")
def _select(w: Writer, call: Call, self_: Value, dim: int, index: int, **_: Any) -> str:
    if w.shape(self_)[dim] == 1:
        return _view(w, call, self_)  # type: ignore[return-value]
    return str(w.node("Gather", w.name(self_), w.constant(np.array(index, dtype=np.int64)), axis=dim))


@rule("split.Tensor", "split_with_sizes.default")
def _split(w: Writer, call: Call, self_: Value, dim: int, **_: Any) -> list[str]:
    sizes = [w.shape(result)[dim] for result in call.results]
    if len(sizes) == 1:
        return [w.name(self_)]
    return list(w.node("Split", w.name(self_), w.ints(*sizes), outputs=len(sizes), axis=dim))


@rule("unbind.int")
def _unbind(w: Writer, call: Call, self_: Value, dim: int, **_: Any) -> list[str]:
    return [
        w.node("Gather", w.name(self_), w.constant(np.array(i, dtype=np.int64)), axis=dim)
        for i in range(len(call.results))
    ]


@rule("index_select.default")
def _index_select(w: Writer, call: Call, self_: Value, dim: int, index: Value, **_: Any) -> str:
    return str(w.node("Gather", w.name(self_), w.name(index), axis=dim))


@rule("gather.default")
def _gather(w: Writer, call: Call, self_: Value, dim: int, index: Value, **_: Any) -> str:
    return str(w.node("GatherElements", w.name(self_), w.name(index), axis=dim))


@rule("slice_backward.default")
def _slice_backward(
    w: Writer, call: Call, grad_output: Value, input_sizes: Sequence[int], dim: int, start: int, end: int, step: int
) -> str:
    if step != 1:
        raise ConfigError("the gradient of every so many entries cannot be written for this engine: use engine=torch")
    first, last, _ = slice(start, end).indices(input_sizes[dim])
    axes = len(input_sizes)
    pads = [0] * (2 * axes)
    pads[dim % axes], pads[axes + dim % axes] = first, input_sizes[dim] - last
    return str(w.node("Pad", w.name(grad_output), w.ints(*pads), w.name(0.0)))


@rule("index.Tensor")
def _index(w: Writer, call: Call, self_: Value, indices: Sequence[Value | None], **_: Any) -> str:
    if any(index is None for index in indices):
        raise ConfigError("this way of indexing cannot be written for this engine: use engine=torch")
    shape = torch.broadcast_shapes(*(w.shape(index) for index in indices if index is not None))
    columns = []
    for index in indices:
        wide = w.node("Expand", w.name(index, torch.int64), w.ints(*shape))
        columns.append(w.node("Unsqueeze", wide, w.ints(len(shape))))
    return str(w.node("GatherND", w.name(self_), w.node("Concat", *columns, axis=len(shape))))


# ------------------------------------------------------------------------------------- reductions and normalisations


def _reduction(kind: str) -> Rule:
    def write(w: Writer, call: Call, self_: Value, dim: Any, keepdim: bool, **_: Any) -> str:
        axes = [dim] if isinstance(dim, int) else list(dim or range(len(w.shape(self_))))
        return str(w.node(kind, w.name(self_, w.dtype(call.results[0])), w.ints(*axes), keepdims=int(keepdim)))

    return write


RULES["aten.sum.dim_IntList"] = _reduction("ReduceSum")
RULES["aten.mean.dim"] = _reduction("ReduceMean")
RULES["aten.amax.default"] = _reduction("ReduceMax")
RULES["aten.amin.default"] = _reduction("ReduceMin")


@rule("cumsum.default")
def _cumulated(w: Writer, call: Call, self_: Value, dim: int, **_: Any) -> str:
    return str(w.node("CumSum", w.name(self_), w.ints(dim)))


@rule("linalg_vector_norm.default")
def _norm(w: Writer, call: Call, self_: Value, ord: float, dim: Any, keepdim: bool, **_: Any) -> str:
    if ord != 2:
        raise ConfigError("only Euclidean lengths can be written for this engine: use engine=torch")
    axes = range(len(w.shape(self_))) if dim is None else dim
    return str(w.node("ReduceL2", w.name(self_), w.ints(*axes), keepdims=int(keepdim)))


@rule("argmax.default")
def _argmax(w: Writer, call: Call, self_: Value, dim: int | None, keepdim: bool, **_: Any) -> str:
    if dim is None:
        raise ConfigError("the place of the largest of all entries cannot be written for this engine: use engine=torch")
    return str(w.node("ArgMax", w.name(self_), axis=dim, keepdims=int(keepdim)))


@rule("_softmax.default", "_safe_softmax.default")
def _softmax(w: Writer, call: Call, self_: Value, dim: int, **_: Any) -> str:
    return str(w.node("Softmax", w.name(self_), axis=dim))


@rule("_log_softmax.default")
def _log_softmax(w: Writer, call: Call, self_: Value, dim: int, **_: Any) -> str:
    return str(w.node("LogSoftmax", w.name(self_), axis=dim))


@rule("native_layer_norm.default")
def _layer_norm(
    w: Writer, call: Call, input: Value, normalized_shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> list[str]:
    scale = w.constant(np.ones(tuple(normalized_shape), np.float32)) if weight is None else w.name(weight)
    rest = [] if bias is None else [w.name(bias)]
    axis = -len(normalized_shape)
    moments = 3 if w.used & set(call.results[1:]) else 1  # mean and deviation, where a gradient reads them
    found = w.node("LayerNormalization", w.name(input), scale, *rest, outputs=moments, axis=axis, epsilon=float(eps))
    return found if moments > 1 else [found]


@rule("native_layer_norm_backward.default")
def _layer_norm_backward(
    w: Writer,
    call: Call,
    grad_out: Value,
    input: Value,
    normalized_shape: Sequence[int],
    mean: Value,
    rstd: Value,
    weight: Any,
    **_: Any,
) -> list[str]:
    """Write rstd (g - mean g - y mean(g y)), y the normalised input and g the gradient of it."""
    axes = w.ints(*range(-len(normalized_shape), 0))
    gradient = w.name(grad_out) if weight is None else w.node("Mul", w.name(grad_out), w.name(weight))
    normal = w.node("Mul", w.node("Sub", w.name(input), w.name(mean)), w.name(rstd))
    level = w.node("ReduceMean", gradient, axes, keepdims=1)
    slope = w.node("ReduceMean", w.node("Mul", gradient, normal), axes, keepdims=1)
    rest = w.node("Sub", w.node("Sub", gradient, level), w.node("Mul", normal, slope))
    return [w.node("Mul", rest, w.name(rstd))]


@rule("native_group_norm.default")
def _group_norm(
    w: Writer, call: Call, input: Value, weight: Any, bias: Any, N: int, C: int, HxW: int, group: int, eps: float
) -> list[str]:
    size = C // group * HxW
    grouped = w.node("Reshape", w.name(input), w.ints(N, group, size))
    ones = w.constant(np.ones(size, np.float32))
    normal = w.node("LayerNormalization", grouped, ones, axis=-1, epsilon=float(eps))
    shape = w.shape(input)
    found = w.node("Reshape", normal, w.ints(*shape))
    for kind, part in (("Mul", weight), ("Add", bias)):
        if part is not None:
            one_each = w.node("Reshape", w.name(part), w.ints(C, *(1 for _ in shape[2:])))
            found = w.node(kind, found, one_each)
    return [found]
