"""The operators of a graph against what TensorRT 10.3's ONNX parser takes, from its published support matrix.

TensorRT 10.3, that of JetPack 6, runs only on its devices: this check reads documents and runs nothing.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

__all__ = ["count_operators", "matrix_source", "unsupported"]

TYPES = {
    ir.DataType.FLOAT: "FP32",
    ir.DataType.FLOAT16: "FP16",
    ir.DataType.BFLOAT16: "BF16",
    ir.DataType.INT32: "INT32",
    ir.DataType.INT64: "INT64",
    ir.DataType.BOOL: "BOOL",
    ir.DataType.INT8: "INT8",
    ir.DataType.UINT8: "UINT8",
}
QUANTISED = ("QuantizeLinear", "DequantizeLinear")
ZERO_POINT = 2
# operators whose type is that of the result
MAKERS = ("ConstantOfShape",)
CONVERTERS = ("Cast", "CastLike")


def count_operators(graph: Path) -> dict[str, int]:
    """Operators of a graph by how often they occur, the most frequent first; others than ONNX's with their domain."""
    return dict(Counter(map(operator_name, ir.load(graph).graph.all_nodes())).most_common())


def unsupported(graph: Path) -> list[str]:
    """Operators that the matrix does not hold, each with the reason; empty where the parser takes the graph."""
    # graphs state types of inputs and outputs alone; those between are inferred, for which no weights are needed
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(graph, load_external_data=False)))
    first, last = matrix()["opsets"]
    version = model.opset_imports.get("", 0)
    reasons = [] if first <= version <= last else [f"opset {version}: the parser knows {first} to {last}"]
    return reasons + list(dict.fromkeys(reason for node in model.graph.all_nodes() for reason in refusals(node)))


def refusals(node: ir.Node) -> Iterator[str]:
    """Why the parser would refuse a node."""
    name = operator_name(node)
    types = supported_types().get(name)
    if types is None:
        yield f"{name}: not in the matrix"
        return
    for value in typed_values(node):
        found = "an unknown type" if value.dtype is None else TYPES.get(value.dtype, str(value.dtype))
        if found not in types:
            yield f"{name}: takes {' '.join(types)}, not {found}"
    if name in QUANTISED and len(node.inputs) > ZERO_POINT and not symmetric(node.inputs[ZERO_POINT]):
        yield f"{name}: {matrix()['restrictions'][name]}"
    if name == "ScatterElements":
        yield f"{name}: {matrix()['restrictions'][name]}"
    if name == "LayerNormalization" and len(node.outputs) > 1:
        yield f"{name}: {matrix()['restrictions'][name]}"
    if name == "ScatterND" and node.attributes.get_string("reduction", "none") != "none":
        yield f"{name}: {matrix()['restrictions'][name]}"


def matrix_source() -> str:
    """Version and documents behind the matrix."""
    return f"{matrix()['version']} ({matrix()['source']})"


def operator_name(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def typed_values(node: ir.Node) -> list[ir.Value]:
    """Values of a node whose types the matrix speaks of: the first input, or what is made or converted to."""
    name = operator_name(node)
    read = [] if name in MAKERS else [value for value in node.inputs[:1] if value is not None]
    made = list(node.outputs[:1]) if name in MAKERS + CONVERTERS else []
    return read + made


def symmetric(value: ir.Value | None) -> bool:
    """Whether a zero point is absent, or a constant of signed zeros."""
    if value is None:
        return True
    constant = ir.convenience.get_const_tensor(value)
    return constant is not None and constant.dtype != ir.DataType.UINT8 and not constant.numpy().any()


@cache
def matrix() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(resources.files(__package__).joinpath("onnx_parser.json").read_text())
    return content


@cache
def supported_types() -> dict[str, list[str]]:
    return {name: types.split() for types, names in matrix()["operators"].items() for name in names}
