"""Small profiles, which keep compiling short, and graphs made by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SMALL = (
    *("--profile", "batch=1:2:4"),
    *("--profile", "frames=1:2:4"),
    *("--profile", "voxels=1:200:400"),
    *("--profile", "voxels=1:1000:2000"),
)


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Options of stllm-export tensorrt."""
    return SMALL


@pytest.fixture
def one_node(tmp_path: Path) -> Callable[..., Path]:
    """A graph of one node over float32 rows; initialisers by name."""

    def make(operator: str, constants: dict[str, Any], opset: int = 18, domain: str = "", **attributes: Any) -> Path:
        node = helper.make_node(operator, ["x", *constants], ["y"], domain=domain, **attributes)
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
        )
        imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
        file = tmp_path / f"{operator}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=imports), file)
        return file

    return make


@pytest.fixture(scope="session")
def quantise() -> Callable[[Path, Path, np.ndarray], None]:
    """Puts quantisation and its inverse before both factors of every product with a weight.

    The weights stay in their file, beside which the graph is written.
    """

    def write(source: Path, target: Path, zero: np.ndarray) -> None:
        model = onnx.load(source, load_external_data=False)
        weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
        model.graph.initializer.extend(
            [numpy_helper.from_array(np.float32(0.02), "scale"), numpy_helper.from_array(zero, "zero")]
        )
        nodes = []
        for node in model.graph.node:
            if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights:
                for place in (0, 1):
                    name = f"{node.name or node.output[0]}_{place}"
                    quantised, restored = f"{name}_q", f"{name}_dq"
                    nodes.append(helper.make_node("QuantizeLinear", [node.input[place], "scale", "zero"], [quantised]))
                    nodes.append(helper.make_node("DequantizeLinear", [quantised, "scale", "zero"], [restored]))
                    node.input[place] = restored
            nodes.append(node)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        target.unlink(missing_ok=True)
        onnx.save(model, target)

    return write
