"""Traced operators of the domain `stllm` in the ONNX operators that a provider runs best.

portable: standard operators only; attention head by head in chunks of rows, so that no score matrix is whole.
cpu: ONNX Runtime's fused attention and GELU.
tensorrt: standard operators in their plainest form, which its compiler fuses; no chunks of rows, no slabs. It fuses
attention with FP16 factors only, and unfused the aligner's scores would take gigabytes.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from ...runtime.bundle.manifest import CPU, PORTABLE, TENSORRT
from ...runtime.host.maps import SLAB_OFFSETS
from .operators import DOMAIN, PLANES

__all__ = ["PROVIDERS", "expand"]

PROVIDERS = (PORTABLE, CPU, TENSORRT)
CONTRIB = "com.microsoft"
SELF_ATTENTION_CHUNKS = 2
CROSS_ATTENTION_CHUNKS = 8
FEED_FORWARD_CHUNKS = 8


def expand(model: ir.Model, provider: str, kinds: tuple[str, ...], safe: set[str] | None = None) -> None:
    """Replace the traced operators of the given kinds; changes `model`.

    `safe` names the weights whose products can be FP16; None makes a float32 graph.
    """
    forms: dict[str, Callable[..., ir.Value]] = {
        "Attention": ATTENTION[provider],
        "FeedForward": whole_feed_forward if provider == TENSORRT else feed_forward,
        "SlabConvolution": slab_convolution,
        "TableConvolution": table_convolution,
    }
    builder = Builder(model.graph, provider, safe)
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type not in kinds:
            continue
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        result = forms[node.op_type](builder, *node.inputs, **attributes)
        model.graph.insert_before(node, builder.take())
        old = node.outputs[0]
        result.name, result.type, result.shape = old.name, old.type, old.shape
        old.name = f"{old.name}_traced"
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    if provider == CPU:
        model.graph.opset_imports[CONTRIB] = 1
    if not any(node.domain == DOMAIN for node in model.graph):
        model.graph.opset_imports.pop(DOMAIN, None)


class Builder:
    """Collects new nodes; what many of them share is made once."""

    def __init__(self, graph: ir.Graph, provider: str, safe: set[str] | None):
        self.provider, self.safe = provider, safe
        self._graph = graph
        self._nodes: list[ir.Node] = []
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

    def take(self) -> list[ir.Node]:
        """The nodes since the last call."""
        nodes, self._nodes = self._nodes, []
        return nodes

    def _initialise(self, array: np.ndarray) -> ir.Value:
        name = f"constant_{len(self._graph.initializers)}"
        tensor = ir.tensor(array, name=name)
        shape = ir.Shape(array.shape)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        self._graph.initializers[name] = value
        return value


def fused_attention(builder: Builder, query: ir.Value, key: ir.Value, value: ir.Value, heads: int) -> ir.Value:
    """One operator, which tiles scores through the cache."""
    return builder.op("MultiHeadAttention", query, key, value, domain=CONTRIB, num_heads=heads)


def whole_attention(builder: Builder, query: ir.Value, key: ir.Value, value: ir.Value, heads: int) -> ir.Value:
    """MatMul, Softmax, MatMul over all heads of the operator at once.

    The factors are FP16 where the projections can be. In a float32 graph they are so too for any number of rows, since
    only then are they fused; their mantissas are as long as those of TF32. A fused kernel holds scores in float32. Here
    they are FP16, each behind an Identity, so that a literal evaluation rounds them and shows an overflow.
    """
    assert query.shape is not None
    rows, width = query.shape[1], query.shape[2]
    assert isinstance(width, int)
    if builder.safe is None:
        half = not isinstance(rows, int)
    else:
        half = builder.safe.issuperset(projection(values) for values in (query, key, value))
    split, merged = builder.constant([0, 0, heads, width // heads]), builder.constant([0, 0, width])

    def rounded(values: ir.Value) -> ir.Value:
        return builder.op("Identity", values) if half else values

    def per_head(values: ir.Value, perm: list[int]) -> ir.Value:
        turned = builder.op("Transpose", builder.op("Reshape", values, split), perm=perm)
        return rounded(builder.op("Cast", turned, to=int(ir.DataType.FLOAT16))) if half else turned

    scaled = builder.op("Mul", query, builder.constant(1 / math.sqrt(width // heads), np.float32))
    scores = builder.op("MatMul", per_head(scaled, [0, 2, 1, 3]), per_head(key, [0, 2, 3, 1]))
    weights = builder.op("Softmax", rounded(scores), axis=-1)
    mixed = builder.op("MatMul", rounded(weights), per_head(value, [0, 2, 1, 3]))
    if half:
        mixed = builder.op("Cast", rounded(mixed), to=int(ir.DataType.FLOAT))
    return builder.op("Reshape", builder.op("Transpose", mixed, perm=[0, 2, 1, 3]), merged)


def projection(values: ir.Value) -> str:
    """Name of the weight of the last product before some values."""
    while (node := values.producer()) is not None:
        if node.op_type == "MatMul":
            weight = node.inputs[1]
            return str(weight.name) if weight is not None else ""
        first = node.inputs[0]
        assert first is not None
        values = first
    return ""


def chunked_attention(builder: Builder, query: ir.Value, key: ir.Value, value: ir.Value, heads: int) -> ir.Value:
    """MatMul, Softmax, MatMul for each head and each chunk of rows."""
    assert query.shape is not None
    assert key.shape is not None
    width = query.shape[2]
    assert isinstance(width, int)
    chunks = SELF_ATTENTION_CHUNKS if query.shape[1] == key.shape[1] else CROSS_ATTENTION_CHUNKS
    scale = builder.constant(1 / math.sqrt(width // heads), np.float32)
    per_head = zip(*(builder.split(values, heads, 2) for values in (query, key, value)), strict=True)
    mixed = []
    for head_query, head_key, head_value in per_head:
        turned = builder.op("Mul", builder.op("Transpose", head_key, perm=[0, 2, 1]), scale)
        rows = []
        for chunk in row_chunks(builder, head_query, chunks, axis=1):
            weights = builder.op("Softmax", builder.op("MatMul", chunk, turned), axis=-1)
            rows.append(builder.op("MatMul", weights, head_value))
        mixed.append(builder.op("Concat", *rows, axis=1))
    return builder.op("Concat", *mixed, axis=2)


ATTENTION = {PORTABLE: chunked_attention, CPU: fused_attention, TENSORRT: whole_attention}


def whole_feed_forward(
    builder: Builder,
    rows: ir.Value,
    inner: ir.Value,
    inner_bias: ir.Value,
    outer: ir.Value,
    outer_bias: ir.Value,
    approximate: str,
) -> ir.Value:
    """Linear, GELU, Linear."""
    return builder.op(
        "Gemm", gelu(builder, builder.op("Gemm", rows, inner, inner_bias), approximate), outer, outer_bias
    )


def feed_forward(
    builder: Builder,
    rows: ir.Value,
    inner: ir.Value,
    inner_bias: ir.Value,
    outer: ir.Value,
    outer_bias: ir.Value,
    approximate: str,
) -> ir.Value:
    """Linear, GELU, Linear in chunks of rows, so that the widest values are never whole."""
    written = []
    for chunk in row_chunks(builder, rows, FEED_FORWARD_CHUNKS, axis=0):
        hidden = builder.op("Gemm", chunk, inner, inner_bias)
        written.append(builder.op("Gemm", gelu(builder, hidden, approximate), outer, outer_bias))
    return builder.op("Concat", *written, axis=0)


def gelu(builder: Builder, values: ir.Value, approximate: str) -> ir.Value:
    """The exact GELU, or its approximation by tanh."""

    def scalar(number: float) -> ir.Value:
        return builder.constant(number, np.float32)

    if builder.provider == CPU:
        return builder.op("FastGelu" if approximate == "tanh" else "Gelu", values, domain=CONTRIB)
    if approximate == "tanh":
        cubed = builder.op("Mul", builder.op("Mul", values, values), values)
        inside = builder.op("Add", values, builder.op("Mul", cubed, scalar(0.044715)))
        curve = builder.op("Tanh", builder.op("Mul", inside, scalar(math.sqrt(2 / math.pi))))
    else:
        curve = builder.op("Erf", builder.op("Mul", values, scalar(1 / math.sqrt(2))))
    return builder.op("Mul", builder.op("Mul", values, scalar(0.5)), builder.op("Add", curve, scalar(1)))


def row_chunks(builder: Builder, value: ir.Value, chunks: int, axis: int) -> list[ir.Value]:
    """A value cut along an axis of unknown length at `i * length // chunks`; short ones leave empty chunks."""
    length = builder.op("Shape", value, start=axis, end=axis + 1)
    ends = builder.op("Div", builder.op("Mul", length, builder.constant(range(chunks + 1))), builder.constant([chunks]))
    limits = builder.split(ends, chunks + 1, 0)
    along = builder.constant([axis])
    return [builder.op("Slice", value, limits[i], limits[i + 1], along) for i in range(chunks)]


def slab_convolution(
    builder: Builder,
    hidden: ir.Value,
    kernel: ir.Value,
    bias: ir.Value,
    rows: ir.Value,
    bounds: ir.Value,
    offsets: ir.Value,
    place: ir.Value,
) -> ir.Value:
    """Gather and Gemm for each slab; the bias joins the middle plane, in which every voxel has its centre."""
    assert kernel.shape is not None
    _, inner, outer = kernel.shape.numpy()
    half = kernel.dtype == ir.DataType.FLOAT16
    zeros = builder.constant(np.zeros((1, outer)), np.float16 if half else np.float32)
    flat = builder.op("Reshape", kernel, builder.constant([PLANES**3, inner * outer]))
    tables, used, places = builder.once(rows, lambda: cut_slabs(builder, rows, bounds, offsets, place))
    total = None
    for plane in (1, 0, 2):
        written = []
        for index, size in enumerate(SLAB_OFFSETS):
            slab = plane * len(SLAB_OFFSETS) + index
            gathered = builder.op(
                "Reshape", builder.op("Gather", hidden, tables[slab]), builder.constant([-1, size * inner])
            )
            weight = builder.op(
                "Reshape", builder.op("Gather", flat, used[slab]), builder.constant([size * inner, outer])
            )
            written.append(builder.op("Gemm", gathered, weight, *([bias] if plane == 1 else [])))
        part = builder.op("Gather", builder.op("Concat", *written, zeros, axis=0), places[plane])
        total = part if total is None else builder.op("Add", total, part)
    assert total is not None
    return total


def cut_slabs(
    builder: Builder, rows: ir.Value, bounds: ir.Value, offsets: ir.Value, place: ir.Value
) -> tuple[list[ir.Value], list[ir.Value], list[ir.Value]]:
    """Tables and kernel offsets of each slab, and each plane's places."""
    axis = builder.constant([0])
    slabs = PLANES * len(SLAB_OFFSETS)
    limits = builder.split(bounds, slabs + 1, 0)
    first = np.cumsum([0, *SLAB_OFFSETS * PLANES])
    fixed = [builder.constant([number]) for number in first]
    tables = [builder.op("Slice", rows, limits[i], limits[i + 1], axis) for i in range(slabs)]
    used = [builder.op("Slice", offsets, fixed[i], fixed[i + 1], axis) for i in range(slabs)]
    flat = builder.constant([-1])
    return tables, used, [builder.op("Reshape", part, flat) for part in builder.split(place, PLANES, 0)]


def table_convolution(
    builder: Builder, hidden: ir.Value, kernel: ir.Value, bias: ir.Value, table: ir.Value
) -> ir.Value:
    """Gather and Gemm for each plane of nine offsets, so that no more than a third of the rows is gathered at once."""
    assert kernel.shape is not None
    offsets, inner, outer = kernel.shape.numpy()
    size = offsets // PLANES
    zeros = builder.constant(np.zeros((1, outer)), np.float16 if kernel.dtype == ir.DataType.FLOAT16 else np.float32)
    columns = builder.once(table, lambda: builder.split(table, PLANES, 1))
    weights = builder.split(builder.op("Reshape", kernel, builder.constant([offsets * inner, outer])), PLANES, 0)
    total = bias
    for rows, weight in zip(columns, weights, strict=True):
        gathered = builder.op("Reshape", builder.op("Gather", hidden, rows), builder.constant([-1, size * inner]))
        total = builder.op("Add", builder.op("MatMul", gathered, weight), total)
    return builder.op("Concat", total, zeros, axis=0)
