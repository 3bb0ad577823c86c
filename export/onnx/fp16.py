"""FP16 graphs: products with weights in half precision, everything between them in float32."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

__all__ = ["convert", "halved_weights", "islands", "record_ranges", "safe_weights"]

LOG = logging.getLogger(__name__)
LARGEST = float(torch.finfo(torch.float16).max)
HALF = ".fp16"
# the built-in sample is one small scene; others may have larger values
MARGIN = 4.0
# FP16 rounds normal numbers by less than 5e-4: more means that weights are too small to have all of its bits
ROUNDING_LIMIT = 1e-3
PRODUCTS = ("MatMul", "Gemm", "Conv", "SlabConvolution", "TableConvolution")


@contextmanager
def record_ranges(module: nn.Module) -> Iterator[dict[str, float]]:
    """Largest magnitudes that go into and out of each submodule with weights, while inside; by the weight's name."""
    ranges: dict[str, float] = {}
    hooks = []

    def watch(name: str, submodule: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            # only the first input is a factor; others are kernel maps
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


def islands(module: nn.Module, ranges: dict[str, float], margin: float = MARGIN) -> dict[str, str]:
    """Weights whose products stay float32, and why: what goes in or out of them, or rounding, is too much for FP16.

    Args:
        module: the encoder as it is traced.
        ranges: from `record_ranges`.
        margin: how many times larger the values of other inputs may be.
    """
    weights = dict(module.named_parameters())
    found = {}
    for name, seen in ranges.items():
        error = torch.linalg.vector_norm(weights[name].half().float() - weights[name])
        if not seen * margin < LARGEST:
            found[name] = f"its values reach {seen:,.0f}, with a margin of {margin:g} beyond FP16's {LARGEST:,.0f}"
        elif not error <= ROUNDING_LIMIT * torch.linalg.vector_norm(weights[name]):
            found[name] = "its weights are too small to have all of FP16's bits"
    return found


def safe_weights(module: nn.Module, ranges: dict[str, float]) -> set[str]:
    """Weights whose products can be computed in FP16: all but the islands, which are logged."""
    kept = islands(module, ranges)
    for name, reason in kept.items():
        LOG.info("FP16: %s stays float32: %s", name, reason)
    return ranges.keys() - kept.keys()


def convert(model: ir.Model, safe: set[str]) -> None:
    """Cast the factors of every product with a safe weight to FP16 and its result back; changes `model`.

    Each cast to FP16 stands behind an Identity. ONNX Runtime on the CPU has no FP16 products and drops casts that meet;
    with its optimiser off, the Identity keeps them apart, and the graph is evaluated as a device evaluates it.
    """
    graph, casts = model.graph, {}
    for node in list(graph):
        factors = [value for value in node.inputs if value is not None and value.is_initializer()]
        weights = {value.name for value in factors if value.shape is not None and len(value.shape) > 1}
        if node.op_type not in PRODUCTS or not weights or not safe.issuperset(weights):
            continue
        for index, value in enumerate(node.inputs):
            # integers are kernel maps
            if value is None or value.dtype not in (None, ir.DataType.FLOAT):
                continue
            if value.is_initializer():
                node.replace_input_with(index, half_initializer(graph, value))
                continue
            if value not in casts:
                casts[value] = cast(graph, node, value, ir.DataType.FLOAT16, before=True)
            node.replace_input_with(index, casts[value])
        output = node.outputs[0]
        # a type of its own: copies of a graph share theirs
        output.type = ir.TensorType(ir.DataType.FLOAT16)
        # listed before the cast back becomes one of them
        consumers = list(output.uses())
        restored = cast(graph, node, output, ir.DataType.FLOAT, before=False)
        for use in consumers:
            use.node.replace_input_with(use.idx, restored)
        for position, result in enumerate(graph.outputs):
            # the graph's output has the name that the table of stages says
            if result is output:
                restored.name, output.name = output.name, f"{output.name}_fp16"
                graph.outputs[position] = restored
    # float32 weights that nothing reads would be written beside their FP16 copies
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


def halved_weights(path: Path) -> set[str]:
    """Names of the weights in a graph whose products are FP16."""
    names = ir.load(path).graph.initializers
    return {name.removesuffix(HALF) for name in names if name.endswith(HALF)}


def cast(graph: ir.Graph, node: ir.Node, value: ir.Value, dtype: ir.DataType, *, before: bool) -> ir.Value:
    """Insert a Cast of `value` beside `node`, and an Identity on its FP16 side; the result."""
    to_half = dtype == ir.DataType.FLOAT16
    first = ir.node("Cast", [value], attributes={"to": int(dtype)}) if to_half else ir.node("Identity", [value])
    second = (
        ir.node("Identity", [first.outputs[0]])
        if to_half
        else ir.node("Cast", [first.outputs[0]], attributes={"to": int(dtype)})
    )
    for step, suffix in ((first, "step"), (second, "fp16" if to_half else "fp32")):
        result = step.outputs[0]
        result.name, result.shape = f"{value.name}_{suffix}", value.shape
        result.dtype = dtype if step is second or to_half else ir.DataType.FLOAT16
    if before:
        graph.insert_before(node, [first, second])
    else:
        graph.insert_after(node, [first, second])
    return second.outputs[0]


def half_initializer(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """The FP16 copy of an initialiser, made once."""
    name = f"{value.name}{HALF}"
    if name not in graph.initializers:
        full = value.const_value
        assert full is not None
        half = ir.tensor(full.numpy().astype(np.float16), name=name)
        graph.initializers[name] = ir.Value(
            name=name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT16), const_value=half
        )
    return graph.initializers[name]
