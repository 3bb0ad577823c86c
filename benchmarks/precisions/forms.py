"""Other forms of the same INT8 products for CPUs, made of a bundle's graphs, to choose the default by measurement.

    unsigned   weights as uint8 around 128, in the place of int8
    static     ranges set before, quantisation and its inverse around the product, as TensorRT's graph has it
    blocks8    weights in blocks of 32 with a scale each, 8 bits (`MatMulNBits`, accuracy_level 4); no folds
    blocks4    the same in 4 bits

All have the feed-forward in one piece, as the bundle's own INT8 graph does.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ...export.int8.convert import INTEGERS, SCALE
from ...export.int8.numerics import MOST

__all__ = ["FORMS", "write_form"]

BLOCK = 32


def write_form(form: str, int8: Path, exact: Path, thresholds: Mapping[str, float], folder: Path) -> tuple[Path, int]:
    """Write a form of an encoder's products.

    Args:
        form: one of `FORMS`.
        int8: the bundle's INT8 graph for CPUs.
        exact: its float32 graph for CPUs.
        thresholds: largest input that is kept, by weight; for `static`.
        folder: gets the graph.

    Returns:
        The graph, and the bytes of it and its weights.
    """
    model = ir.load(int8)
    FORMS[form](model.graph, ir.load(exact).graph, thresholds)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    path, weights = folder / f"{form}.onnx", folder / f"{form}.data"
    ir.save(model, path, external_data=weights.name)
    return path, path.stat().st_size + weights.stat().st_size


def unsigned(graph: ir.Graph, exact: ir.Graph, thresholds: Mapping[str, float]) -> None:
    """Weights as uint8 with a zero of 128."""
    zero = constant(graph, "unsigned.zero", np.uint8(128))
    for node in [node for node in graph if node.op_type == "MatMulInteger"]:
        weight = node.inputs[1]
        assert weight is not None
        shifted = (read(graph, str(weight.name)).astype(np.int16) + 128).astype(np.uint8)
        node.replace_input_with(1, constant(graph, f"{weight.name}.unsigned", shifted))
        node.resize_inputs(4)
        node.replace_input_with(3, zero)


def static(graph: ir.Graph, exact: ir.Graph, thresholds: Mapping[str, float]) -> None:
    """Ranges that were set before."""
    # uint8 around 128: ONNX Runtime has one operator for these with int8 weights on CPUs, and none for int8 with int8
    zero = constant(graph, "static.zero", np.uint8(128))

    def make(rows: ir.Value, name: str) -> Iterator[ir.Node]:
        step = constant(graph, f"{name}.step", np.float32(thresholds[name] / MOST))
        quantised = ir.node("QuantizeLinear", [rows, step, zero])
        restored = ir.node("DequantizeLinear", [quantised.outputs[0], step, zero])
        stored = [graph.initializers[f"{name}{suffix}"] for suffix in (INTEGERS, SCALE)]
        zeros = constant(graph, f"{name}.zeros", np.zeros(read(graph, f"{name}{SCALE}").shape, np.int8))
        weight = ir.node("DequantizeLinear", [*stored, zeros], attributes={"axis": 1})
        yield from (quantised, restored, weight)
        yield ir.node("MatMul", [restored.outputs[0], weight.outputs[0]])

    replace_products(graph, make)
    for node in [node for node in graph if node.op_type == "Add"]:
        product, bias = node.inputs[0], node.inputs[1]
        source = None if product is None else product.producer()
        if source is None or source.op_type != "MatMul" or bias is None or not bias.is_initializer():
            continue
        # an Add would be joined with the product to a Gemm first, which is then not computed in integers
        negated = constant(graph, f"{bias.name}.negated", -read(graph, str(bias.name)))
        made = ir.node("Sub", [product, negated])
        made.outputs[0].name = f"{node.outputs[0].name}_sub"
        graph.insert_before(node, made)
        node.outputs[0].replace_all_uses_with(made.outputs[0], replace_graph_outputs=True)
        graph.remove(node, safe=True)


def blocks(bits: int) -> Callable[[ir.Graph, ir.Graph, Mapping[str, float]], None]:
    """Weights in blocks, of float32's own values."""

    def form(graph: ir.Graph, exact: ir.Graph, thresholds: Mapping[str, float]) -> None:
        # what folds changed has the same name there
        for name, value in graph.initializers.items():
            if name in exact.initializers:
                value.const_value = exact.initializers[name].const_value

        def make(rows: ir.Value, name: str) -> Iterator[ir.Node]:
            weight = read(exact, name)
            packed, scales = in_blocks(weight, bits)
            stored = [constant(graph, f"{name}.blocks", packed), constant(graph, f"{name}.scales", scales)]
            attributes = {"K": weight.shape[0], "N": weight.shape[1], "bits": bits, "block_size": BLOCK}
            attributes["accuracy_level"] = 4
            yield ir.node("MatMulNBits", [rows, *stored], domain="com.microsoft", attributes=attributes)

        replace_products(graph, make)

    return form


FORMS = {"unsigned": unsigned, "static": static, "blocks8": blocks(8), "blocks4": blocks(4)}


def in_blocks(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight [in, out] as `MatMulNBits` takes it: [out, blocks, bytes] uint8 and [out * blocks] float32 scales."""
    middle = 2 ** (bits - 1)
    count = -(-weight.shape[0] // BLOCK)
    rows = np.zeros((weight.shape[1], count * BLOCK), np.float32)
    rows[:, : weight.shape[0]] = weight.T
    rows = rows.reshape(weight.shape[1], count, BLOCK)
    # the value with the largest magnitude takes the level that has no counterpart
    place = np.abs(rows).argmax(axis=2, keepdims=True)
    scales = np.take_along_axis(rows, place, axis=2) / -middle
    levels = np.round(rows / np.where(scales == 0, 1, scales)) + middle
    packed = levels.clip(0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        packed = packed[:, :, ::2] | packed[:, :, 1::2] << 4
    return packed, scales.astype(np.float32).reshape(-1)


def replace_products(graph: ir.Graph, make: Callable[[ir.Value, str], Iterator[ir.Node]]) -> None:
    """Compute each product in integers otherwise: nodes from its rows and its weight's name, the last gives it."""
    for node in [node for node in graph if node.op_type == "MatMulInteger"]:
        dynamic, weight = node.inputs[0], node.inputs[1]
        assert dynamic is not None
        assert weight is not None
        source = dynamic.producer()
        assert source is not None
        (cast,) = node.outputs[0].consumers()
        (scaled,) = cast.outputs[0].consumers()
        rows = source.inputs[0]
        assert rows is not None
        made = list(make(rows, str(weight.name).removesuffix(INTEGERS)))
        for number, new in enumerate(made):
            new.outputs[0].name = f"{scaled.outputs[0].name}_{number}"
        graph.insert_before(node, made)
        scaled.outputs[0].replace_all_uses_with(made[-1].outputs[0])
        factor = next(value.producer() for value in scaled.inputs if value and value.producer() is not cast)
        graph.remove([scaled, *([factor] if factor is not None else []), cast, node], safe=True)
        if not any(output.uses() for output in source.outputs):
            graph.remove(source, safe=True)


def read(graph: ir.Graph, name: str) -> np.ndarray:
    """Values of an initialiser."""
    held: Any = graph.initializers[name].const_value
    return np.asarray(held.numpy())


def constant(graph: ir.Graph, name: str, values: Any) -> ir.Value:
    """An initialiser, once."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.asarray(values), name=name)
        shape = ir.Shape(np.shape(values))
        graph.initializers[name] = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor
        )
    return graph.initializers[name]
