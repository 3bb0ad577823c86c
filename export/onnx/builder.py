"""New nodes of a graph, and of the bodies of its loops."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["Builder"]


class Builder:
    """Collects new nodes; what many of them share is made once."""

    def __init__(self, graph: ir.Graph, provider: str, safe: set[str] | None, exact: Sequence[str] = ()):
        self.provider, self.safe, self.exact = provider, safe, exact
        self._graph = graph
        self._nodes: list[ir.Node] = []
        self._bodies: list[ir.Graph] = []
        self._shared: dict[Any, Any] = {}

    def op(self, operator: str, *inputs: Any, domain: str = "", **attributes: Any) -> ir.Value:
        """A new node's output."""
        self._nodes.append(ir.node(operator, inputs, attributes=attributes, domain=domain))
        return self._nodes[-1].outputs[0]

    def split(self, value: Any, parts: int, axis: int) -> list[ir.Value]:
        """A value cut into equal parts."""
        node = ir.node("Split", [value], attributes={"num_outputs": parts, "axis": axis}, num_outputs=parts)
        self._nodes.append(node)
        return list(node.outputs)

    def constant(self, values: Any, dtype: Any = np.int64) -> ir.Value:
        """An initialiser with these values."""
        array = np.asarray(values, dtype)
        return self.once((array.dtype.str, array.shape, array.tobytes()), lambda: self._initialise(array))

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """The result of the first call with this key."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def loop(self, trips: int, start: ir.Value, step: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
        """What `step` makes of a value and an iteration's number, so many times; a tensor may change its shape."""
        kind = start.type
        number = ir.Value(type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
        more = ir.Value(type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
        carried = ir.Value(type=kind)
        outside, self._nodes = self._nodes, []
        result = step(number, carried)
        result.type = kind
        inputs = [number, more, carried]
        self._bodies.append(ir.Graph(inputs, [more, result], nodes=self._nodes, name="body"))
        self._nodes = outside
        # the condition may be left out, but ONNX's reference evaluator takes that for false
        always = self.constant(True, np.bool_)
        return self.op("Loop", self.constant(trips), always, start, body=self._bodies[-1])

    def take(self, name: str) -> list[ir.Node]:
        """The nodes since the last call; names of values in loops begin with `name`, since they share the graph's."""
        bodies, self._bodies = self._bodies, []
        values = [value for body in bodies for value in (*body.inputs, *(out for node in body for out in node.outputs))]
        for count, value in enumerate(values):
            value.name = f"{name}_{count}"
        nodes, self._nodes = self._nodes, []
        return nodes

    def _initialise(self, array: np.ndarray) -> ir.Value:
        name = f"constant_{len(self._graph.initializers)}"
        tensor = ir.tensor(array, name=name)
        shape = ir.Shape(array.shape)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        self._graph.initializers[name] = value
        return value
