"""Operators against the published matrix of TensorRT 10.3's parser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from stllm_edge.export.tensorrt.operators import count_operators, matrix_source, unsupported
from stllm_edge.runtime.bundle.manifest import ENCODERS, TENSORRT, Bundle


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_graph_for_tensorrt_holds_only_operators_of_the_matrix(
    encoder: str, precision: str, tiny_bundle: Path
) -> None:
    bundle = Bundle(tiny_bundle)
    graph = bundle.file(bundle.graph(encoder, precision, TENSORRT).file)
    assert unsupported(graph) == []
    assert "MatMul" in count_operators(graph)


def test_fused_operators_of_onnx_runtime_are_not_in_it(tiny_bundle: Path) -> None:
    reasons = unsupported(tiny_bundle / "onnx/vision.cpu.onnx")
    assert "com.microsoft::MultiHeadAttention: not in the matrix" in reasons
    assert "com.microsoft::FastGelu: not in the matrix" in reasons


@pytest.mark.parametrize(
    ("operator", "constants", "attributes", "reason"),
    [
        ("Gelu", {}, {"opset": 20}, "Gelu: not in the matrix"),
        ("Relu", {}, {"opset": 21}, "opset 21: the parser knows 9 to 20"),
        (
            "QuantizeLinear",
            {"scale": np.float32(0.1), "zero": np.uint8(128)},
            {},
            "QuantizeLinear: the zero point must be a signed zero",
        ),
        (
            "ScatterElements",
            {"indices": np.zeros((1, 3), np.int64), "updates": np.ones((1, 3), np.float32)},
            {},
            "ScatterElements: imported as a plugin",
        ),
        (
            "QuantizeLinear",
            {"scale": np.float32(0.1), "zero": np.uint8(0)},
            {},
            "QuantizeLinear: the zero point must be a signed zero",
        ),
        (
            "ScatterND",
            {"indices": np.array([[0]]), "updates": np.ones((1, 3), np.float32)},
            {"reduction": "add"},
            "ScatterND: no reduction",
        ),
    ],
)
def test_refusals_have_reasons(
    operator: str, constants: Any, attributes: Any, reason: str, one_node: Callable[..., Path]
) -> None:
    assert unsupported(one_node(operator, constants, **attributes)) == [reason]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (onnx.TensorProto.INT64, "Pow: takes FP32 FP16 BF16, not INT64"),
        (onnx.TensorProto.DOUBLE, "Cast: takes FP32 FP16 BF16 INT32 INT64 BOOL UINT8, not DOUBLE"),
    ],
)
def test_types_inside_a_graph_count_too(kind: int, reason: str, tmp_path: Path) -> None:
    helper = onnx.helper
    nodes = [helper.make_node("Cast", ["x"], ["inner"], to=kind), helper.make_node("Pow", ["inner", "inner"], ["y"])]
    ends = [helper.make_tensor_value_info(name, kind_, [4]) for name, kind_ in (("x", 1), ("y", kind))]
    graph = helper.make_graph(nodes, "two", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "two.onnx")
    assert reason in unsupported(tmp_path / "two.onnx")


def test_types_count(one_node: Callable[..., Path], tmp_path: Path) -> None:
    file = one_node("Tanh", {})
    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(model, file)
    assert unsupported(file) == ["Tanh: takes FP32 FP16 BF16, not INT32"]


def test_the_matrix_names_its_source() -> None:
    assert matrix_source().startswith("TensorRT 10.3 (onnx/onnx-tensorrt, docs/operators.md")
