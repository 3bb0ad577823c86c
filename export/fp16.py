"""FP16 graphs: products with weights in half precision, everything between them in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

__all__ = ["convert", "record_ranges", "unsafe_weights"]

LARGEST = float(torch.finfo(torch.float16).max)
MARGIN = 4.0
ROUNDING_LIMIT = 1e-3
PRODUCTS = ("MatMul", "Gemm", "Conv", "SlabConvolution")


@contextmanager
def record_ranges(module: nn.Module) -> Iterator[dict[str, float]]:
    """Largest magnitudes that go into and out of each submodule with weights, while inside; by the weight's name."""
    ranges: dict[str, float] = {}
    hooks = []

    def watch(name: str, submodule: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            seen = max(float(tensor.abs().max()) for tensor in (inputs[0], output) if tensor.numel())
            ranges[name] = max(ranges.get(name, 0.0), seen)

        return submodule.register_forward_hook(hook)

    for path, submodule in module.named_modules():
        weights = {"weight", "kernel"}.intersection(dict(submodule.named_parameters(recurse=False)))
        hooks += [watch(f"{path}.{weight}", submodule) for weight in weights]
    try:
        yield ranges
    finally:
        for hook in hooks:
            hook.remove()


def unsafe_weights(module: nn.Module, ranges: dict[str, float]) -> set[str]:
    """Weights whose products stay in float32.

    Those are products that came within a factor of four of overflow on the sample, and weights that FP16 cannot hold or
    rounds by more than 1e-3.
    """
    unsafe = {name for name, seen in ranges.items() if not seen * MARGIN < LARGEST}
    for name, weight in module.named_parameters():
        error = torch.linalg.vector_norm(weight.half().float() - weight) / torch.linalg.vector_norm(weight)
        if not error <= ROUNDING_LIMIT:
            unsafe.add(name)
    return unsafe


def convert(model: ir.Model, unsafe: set[str]) -> None:
    """Cast the factors of every product with a safe weight to FP16 and its result back; changes `model`."""
    graph, casts = model.graph, {}
    for node in list(graph):
        weights = [value.name for value in node.inputs if value is not None and value.is_initializer()]
        if node.op_type not in PRODUCTS or not weights or unsafe.intersection(weights):
            continue
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype != ir.DataType.FLOAT:
                continue
            if value.is_initializer():
                node.replace_input_with(index, half_initializer(graph, value))
                continue
            if value not in casts:
                casts[value] = cast(graph, node, value, ir.DataType.FLOAT16, before=True)
            node.replace_input_with(index, casts[value])
        output = node.outputs[0]
        output.dtype = ir.DataType.FLOAT16
        consumers = list(output.uses())
        restored = cast(graph, node, output, ir.DataType.FLOAT, before=False)
        for use in consumers:
            use.node.replace_input_with(use.idx, restored)
        for position, result in enumerate(graph.outputs):
            if result is output:
                restored.name, output.name = output.name, f"{output.name}_fp16"
                graph.outputs[position] = restored
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


def cast(graph: ir.Graph, node: ir.Node, value: ir.Value, dtype: ir.DataType, *, before: bool) -> ir.Value:
    """Insert a Cast of `value` beside `node`; its result."""
    casting = ir.node("Cast", [value], attributes={"to": int(dtype)})
    result = casting.outputs[0]
    result.name = f"{value.name}_{'fp16' if dtype == ir.DataType.FLOAT16 else 'fp32'}"
    result.dtype, result.shape = dtype, value.shape
    if before:
        graph.insert_before(node, casting)
    else:
        graph.insert_after(node, casting)
    return result


def half_initializer(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """The FP16 twin of an initialiser, made once."""
    name = f"{value.name}.fp16"
    if name not in graph.initializers:
        full = value.const_value
        assert full is not None
        half = ir.tensor(full.numpy().astype(np.float16), name=name)
        graph.initializers[name] = ir.Value(
            name=name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT16), const_value=half
        )
    return graph.initializers[name]
