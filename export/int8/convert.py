"""INT8 graphs: products with weights in integers, everything between them as it is.

For CPUs the range of activations is taken when they are there, as uint8, and the product is `MatMulInteger`. TensorRT
takes symmetric INT8 with ranges that are set before, written as quantisation and its inverse around the product. Both
read the same int8 weights: their own quantisation is computed ahead, and what stands in the graph is its inverse.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from ...runtime.bundle.manifest import TENSORRT
from .numerics import MOST, quantise_weight

__all__ = ["INTEGERS", "SCALE", "convert", "int8_weights"]

INTEGERS, SCALE, STEP = ".int8", ".scale", ".step"
OPERATORS = ("MatMul", "Gemm")


def convert(model: ir.Model, thresholds: Mapping[str, float], provider: str) -> None:
    """Compute the products with these weights in INT8; changes `model`.

    Args:
        model: expanded for the provider.
        thresholds: largest input that is kept, by the weight's name; only TensorRT's graphs read the number.
        provider: whose graph it is.
    """
    pass_ = Quantiser(model.graph, static=provider == TENSORRT)
    for node in list(model.graph):
        weight = node.inputs[1] if node.op_type in OPERATORS else None
        name = str(weight.name) if weight is not None and weight.is_initializer() else ""
        if weight is not None and name in thresholds:
            pass_.replace(node, weight, thresholds[name])
    # float32 weights that nothing reads would be written beside their integers
    graph = model.graph
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


def int8_weights(graph: ir.Graph) -> dict[str, float | None]:
    """Names of the weights in a graph whose products are INT8, with their ranges where these were set before."""
    found: dict[str, float | None] = {}
    for name in graph.initializers:
        if name.endswith(INTEGERS):
            step = graph.initializers.get(f"{name}{STEP}")
            value = None if step is None else step.const_value
            found[name.removesuffix(INTEGERS)] = None if value is None else MOST * float(value.numpy())
    return found


class Quantiser:
    """Replaces products of one graph; what several of them share is made once."""

    def __init__(self, graph: ir.Graph, *, static: bool):
        self.graph, self.static = graph, static
        self._inputs: dict[Any, tuple[ir.Value, ...]] = {}

    def replace(self, node: ir.Node, weight: ir.Value, threshold: float) -> None:
        """Compute one product in INT8."""
        integers, scale = self._weight(weight)
        if self.static:
            self._restore(node, integers, scale, threshold)
        else:
            self._multiply_integers(node, integers, scale)

    def _multiply_integers(self, node: ir.Node, integers: ir.Value, scale: ir.Value) -> None:
        """The product in integers, scaled back; in this order ONNX Runtime makes one operator of it."""
        rows, output = node.inputs[0], node.outputs[0]
        quantised, step, zero = self._dynamic(node, rows)
        made: list[ir.Node] = []

        def op(operator: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
            made.append(ir.node(operator, inputs, attributes=attributes))
            made[-1].outputs[0].name = f"{output.name}_{operator.lower()}_{len(made)}"
            return made[-1].outputs[0]

        product = op("Cast", op("MatMulInteger", quantised, integers, zero), to=int(ir.DataType.FLOAT))
        result = op("Mul", product, op("Mul", step, scale))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            result = op("Add", result, node.inputs[2])
        result.type, result.shape = output.type, output.shape
        name, output.name = output.name, f"{output.name}_float"
        result.name = name
        self.graph.insert_before(node, made)
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)

    def _dynamic(self, node: ir.Node, rows: Any) -> tuple[ir.Value, ...]:
        """A value as uint8, its step and its zero."""
        if rows not in self._inputs:
            made = ir.node("DynamicQuantizeLinear", [rows], num_outputs=3)
            for value, suffix in zip(made.outputs, ("uint8", "step", "zero"), strict=True):
                value.name = f"{rows.name}_{suffix}"
            self.graph.insert_before(node, [made])
            self._inputs[rows] = tuple(made.outputs)
        return self._inputs[rows]

    def _restore(self, node: ir.Node, integers: ir.Value, scale: ir.Value, threshold: float) -> None:
        """Quantisation and its inverse before both factors."""
        rows = node.inputs[0]
        assert rows is not None
        step = self._constant(f"{integers.name}{STEP}", np.float32(threshold / MOST))
        zero = self._constant("int8.zero", np.int8(0))
        if (rows, threshold) not in self._inputs:
            quantised = ir.node("QuantizeLinear", [rows, step, zero])
            restored = ir.node("DequantizeLinear", [quantised.outputs[0], step, zero])
            for made, suffix in ((quantised, "int8"), (restored, "restored")):
                made.outputs[0].name = f"{rows.name}_{suffix}_{len(self._inputs)}"
            self.graph.insert_before(node, [quantised, restored])
            self._inputs[rows, threshold] = (restored.outputs[0],)
        weight = ir.node("DequantizeLinear", [integers, scale], attributes={"axis": 1})
        weight.outputs[0].name = f"{node.outputs[0].name}_weight"
        self.graph.insert_before(node, [weight])
        node.replace_input_with(0, self._inputs[rows, threshold][0])
        node.replace_input_with(1, weight.outputs[0])

    def _weight(self, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
        """A weight's integers and scales."""
        name = f"{weight.name}{INTEGERS}"
        if name not in self.graph.initializers:
            assert weight.const_value is not None
            integers, scale = quantise_weight(torch.from_numpy(np.array(weight.const_value.numpy())))
            self._constant(name, integers.numpy())
            self._constant(f"{weight.name}{SCALE}", scale.numpy())
        return self.graph.initializers[name], self.graph.initializers[f"{weight.name}{SCALE}"]

    def _constant(self, name: str, values: Any) -> ir.Value:
        """An initialiser of this name, made once."""
        if name not in self.graph.initializers:
            tensor = ir.tensor(np.asarray(values), name=name)
            shape = ir.Shape(np.shape(values))
            value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
            self.graph.initializers[name] = value
        return self.graph.initializers[name]
