"""Traced operators of the domain `stllm` in the ONNX operators that a provider runs best.

portable: standard operators only; attention head by head in chunks of rows, so that scores are never all in memory.
cpu: ONNX Runtime's fused attention and GELU.
tensorrt: standard operators in their plainest form, which its compiler fuses; no chunks of rows, no slabs. It fuses
attention with FP16 factors only, and unfused the aligner's scores would take gigabytes.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ...runtime.bundle.manifest import CPU, PORTABLE, TENSORRT
from .builder import Builder
from .convolutions import slab_convolution, table_convolution
from .operators import DOMAIN

__all__ = ["PROVIDERS", "expand"]

PROVIDERS = (PORTABLE, CPU, TENSORRT)
CONTRIB = "com.microsoft"
SELF_ATTENTION_CHUNKS = 2
CROSS_ATTENTION_CHUNKS = 8
FEED_FORWARD_CHUNKS = 8


def expand(
    model: ir.Model,
    provider: str,
    kinds: tuple[str, ...],
    safe: set[str] | None = None,
    exact: Sequence[str] = (),
    *,
    whole: bool = False,
) -> None:
    """Replace the traced operators of the given kinds; changes `model`.

    `safe` names the weights whose products can be FP16; None makes a float32 graph. `exact` are the paths
    of attentions whose factors stay float32 wherever others' are FP16. `whole` leaves a feed-forward in one piece.
    """
    forms: dict[str, Callable[..., ir.Value]] = {
        "Attention": ATTENTION[provider],
        "FeedForward": whole_feed_forward if whole or provider == TENSORRT else feed_forward,
        "SlabConvolution": slab_convolution,
        "TableConvolution": table_convolution,
    }
    builder = Builder(model.graph, provider, safe, exact)
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type not in kinds:
            continue
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        result = forms[node.op_type](builder, *node.inputs, **attributes)
        old = node.outputs[0]
        model.graph.insert_before(node, builder.take(f"{old.name}_part"))
        result.name, result.type, result.shape = old.name, old.type, old.shape
        old.name = f"{old.name}_traced"
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    if provider == CPU:
        model.graph.opset_imports[CONTRIB] = 1
    if not any(node.domain == DOMAIN for node in model.graph):
        model.graph.opset_imports.pop(DOMAIN, None)


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
    half = half and projection(query).removesuffix(".query.weight") not in builder.exact
    split, merged = builder.constant([0, 0, heads, width // heads]), builder.constant([0, 0, width])

    def rounded(values: ir.Value) -> ir.Value:
        return builder.op("Identity", values) if half else values

    def per_head(values: ir.Value, perm: list[int]) -> ir.Value:
        turned = builder.op("Transpose", builder.op("Reshape", values, split), perm=perm)
        return rounded(builder.op("Cast", turned, to=int(ir.DataType.FLOAT16))) if half else turned

    # scaled before the cast: FP16 would overflow at scores that float32 holds
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
        # the keys are scaled, once for all chunks, and not the scores, which are far more
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
    """Linear, GELU, Linear in chunks of rows, so that the widest values are never in memory at once."""
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
        # written out: Gelu is an operator from opset 20 on
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
