"""Fewer calls for the same result: views of views, and views between operations that do not care for shapes."""

from robopol.export.graph import Call, Graph, Value, replaced, values_in

_VIEWS = {
    "aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten.clone.default",
    "aten.contiguous.default", "aten.unsqueeze.default", "aten.squeeze.dim", "aten.squeeze.dims",
    "aten.squeeze.default", "aten.expand.default", "aten.permute.default", "aten.transpose.int",
    "aten.t.default", "aten.select.int",
}  # fmt: skip
_ELEMENTWISE = {
    "aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor", "aten.div.Tensor", "aten.add.Scalar", "aten.mul.Scalar",
    "aten.rsub.Scalar", "aten.clamp.default", "aten.relu.default", "aten.sigmoid.default", "aten.tanh.default",
    "aten.addcmul.default", "aten.mish.default", "aten.gelu.default", "aten.silu.default", "aten.neg.default",
}  # fmt: skip


def simplify(graph: Graph) -> None:
    """Take out views, in place.

    An operation that treats all entries alike is done in the shape in which its operand was computed, and what it gives
    is viewed afterwards; so a view to a chunk's shape and the view back to a network's meet, and both are left out.
    """
    Simplifier(graph).run()
    graph.prune()


class Simplifier:
    """The state of one pass over a graph."""

    def __init__(self, graph: Graph) -> None:
        """Look at a graph."""
        self.graph = graph
        self.calls: list[Call] = []
        self.root: dict[Value, Value] = {}  # a view -> what it is a view of
        self.seen_as: dict[tuple[Value, tuple[int, ...]], Value] = {}

    def run(self) -> None:
        """Rewrite every call."""
        for call in self.graph.calls:
            if (same := self._same(call)) is not None:
                self.root[call.results[0]] = self._root(same)
            elif call.op in _ELEMENTWISE and self._same_shapes(call):
                self._in_its_own_shape(call)
            else:
                self.calls.append(call._replace(arguments=replaced(call.arguments, self._as_it_was)))
        self.graph.output = self._as_it_was(self.graph.output)
        self.graph.calls = self.calls

    def _root(self, value: Value) -> Value:
        return self.root.get(value, value)

    def _shape(self, value: Value) -> tuple[int, ...]:
        return self.graph.forms[value].shape

    def _same(self, call: Call) -> Value | None:
        """Return the value of which the result has all entries in the same order, if there is one."""
        arguments = call.arguments
        if call.op == "aten.cat.default" and len(arguments["tensors"]) == 1:
            return arguments["tensors"][0]
        if (call.op == "aten.mul.Tensor" and arguments["other"] == 1.0) or (call.op in _VIEWS and self._is_view(call)):
            return arguments["self"]
        return None

    def _is_view(self, call: Call) -> bool:
        """Say whether entries keep their order: axes of length one may go anywhere."""
        before, after = self._shape(call.arguments["self"]), self._shape(call.results[0])
        if call.op in ("aten.permute.default", "aten.transpose.int", "aten.t.default"):
            order = list(range(len(before)))
            if call.op == "aten.permute.default":
                order = [dim % len(before) for dim in call.arguments["dims"]]
            elif call.op == "aten.transpose.int":
                one, other = call.arguments["dim0"], call.arguments["dim1"]
                order[one], order[other] = order[other], order[one]
            else:
                order.reverse()
            kept = [dim for dim in order if before[dim] > 1]
            return kept == sorted(kept)
        return _count(before) == _count(after)

    def _same_shapes(self, call: Call) -> bool:
        """Say whether no operand is spread over another."""
        shape = self._shape(call.results[0])
        return all(self._shape(value) == shape for value in values_in(call.arguments))

    def _in_its_own_shape(self, call: Call) -> None:
        # networks compute chunks with few axes, so that is where views between operations are not needed
        shape = min((self._shape(self._root(value)) for value in values_in(call.arguments)), key=len)
        arguments = replaced(call.arguments, lambda value: self._view(self._root(value), shape))
        result = self.graph.new(shape, self.graph.forms[call.results[0]].dtype)
        self.calls.append(Call(call.op, arguments, (result,)))
        self.root[call.results[0]] = result

    def _as_it_was(self, value: Value) -> Value:
        """Return a value in its own shape."""
        return self._view(self._root(value), self._shape(value))

    def _view(self, value: Value, shape: tuple[int, ...]) -> Value:
        if self._shape(value) == shape:
            return value
        if (value, shape) not in self.seen_as:
            view = self.seen_as[value, shape] = self.graph.new(shape, self.graph.forms[value].dtype)
            self.calls.append(Call("aten.reshape.default", {"self": value, "shape": list(shape)}, (view,)))
        return self.seen_as[value, shape]


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
