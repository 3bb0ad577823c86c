"""Convolutions over slabs and over tables in ONNX operators against what is traced."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from stllm_edge.export.onnx import convolutions, operators
from stllm_edge.export.onnx.builder import Builder
from stllm_edge.runtime.host.maps import Level, Slabs

INNER, OUTER = 5, 7
EXACT = 2e-6


def scattered(count: int, extent: int) -> np.ndarray:
    cells = np.unique(np.random.default_rng(count).integers(0, extent, (count, 3)), axis=0)
    return (cells - cells.min(axis=0)).astype(np.int32)


CLOUDS = {
    "one voxel": np.zeros((1, 3), np.int32),
    "two strangers": np.array([[0, 0, 0], [9, 0, 5]], np.int32),
    "fewer voxels than slabs": scattered(9, 3),
    "scattered": scattered(400, 12),
    "surface": np.argwhere(np.ones((12, 9, 1))).astype(np.int32),
    "full cube": np.argwhere(np.ones((6, 7, 5))).astype(np.int32),
}


def expanded(operator: str, weights: dict[str, np.ndarray], maps: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model of one convolution whose rows and maps have free axes, as the traced graph has them."""
    shapes = {name: array.shape for name, array in {"hidden": np.empty((1, INNER)), **maps}.items()}
    inputs = [
        ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.from_numpy(maps[name].dtype) if name in maps else ir.DataType.FLOAT),
            shape=ir.Shape([f"{name}_{axis}" for axis in range(len(shape))]),
        )
        for name, shape in shapes.items()
    ]
    graph = ir.Graph(inputs, [], nodes=[], name="graph", opset_imports={"": 18})
    for name, array in weights.items():
        tensor = ir.tensor(array, name=name)
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
        graph.initializers[name] = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)
    builder = Builder(graph, "portable", None)
    hidden, *given = inputs
    result = getattr(convolutions, operator)(builder, hidden, *graph.initializers.values(), *given)
    graph.extend(builder.take("new"))
    result.name, result.type, result.shape = "result", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["M", OUTER])
    graph.outputs.append(result)
    return ir.to_proto(ir.Model(graph, ir_version=10))


@pytest.mark.parametrize("operator", ["slab_convolution", "table_convolution"])
@pytest.mark.parametrize("coords", CLOUDS.values(), ids=CLOUDS)
def test_operators_compute_the_sum_over_neighbours(operator: str, coords: np.ndarray, rel_rms: Any) -> None:
    generator = np.random.default_rng(0)
    table = Level.of(coords).neighbours(3)
    slabs = Slabs.build(table)
    maps = {"table": np.ascontiguousarray(table.T)}
    if operator == "slab_convolution":
        maps = {"rows": slabs.rows, "bounds": slabs.bounds, "offsets": slabs.offsets, "place": slabs.place}
    weights = {
        "kernel": generator.standard_normal((27, INNER, OUTER)).astype(np.float32),
        "bias": generator.standard_normal(OUTER).astype(np.float32),
    }
    hidden = np.concatenate([generator.standard_normal((len(coords), INNER)), np.zeros((1, INNER))]).astype(np.float32)

    model = expanded(operator, weights, maps)
    onnx.checker.check_model(model, full_check=True)
    (ours,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"hidden": hidden, **maps})

    products = np.einsum("kni,kio->no", hidden.astype(np.float64)[table], weights["kernel"].astype(np.float64))
    expected = np.concatenate([products + weights["bias"], np.zeros((1, OUTER))])
    assert rel_rms(ours, expected) < EXACT
    assert not ours[-1].any()
    tensors = (torch.from_numpy(array) for array in (hidden, *weights.values(), *maps.values()))
    assert rel_rms(getattr(operators, operator)(*tensors), expected) < EXACT
