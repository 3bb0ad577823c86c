"""What each node of a bundle's encoders is computed in, and why it is not in the format of the precision."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..export.int8.convert import INTEGERS
from ..runtime.bundle.manifest import CPU, ENCODERS, TENSORRT, Bundle
from ..runtime.bundle.precisions import FP32, canonical, formats_of
from ..runtime.errors import BadInput

__all__ = ["Kept", "audit"]

PRODUCTS = ("MatMul", "Gemm", "Conv")
HALF = ".fp16"
# what moves numbers or counts rows, and computes nothing
MOVES = {
    *("Cast", "Concat", "ConcatFromSequence", "Constant", "Expand", "Flatten", "Gather", "Identity", "Loop", "Reshape"),
    *("SequenceAt", "SequenceEmpty", "SequenceInsert", "Shape", "Slice", "Split", "SplitToSequence", "Squeeze"),
    *("Transpose", "Unsqueeze", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "MatMulInteger"),
}
REASONS = {
    "LayerNormalization": "sums of squares, which the format would overflow or round away",
    "Softmax": "exponentials, whose range the format lacks",
    "MultiHeadAttention": "a product of two activations with a softmax between, fused in float32",
    "MatMul": "a product of activations, which have no weight to quantise ahead",
    "Gemm": "a product of activations, which have no weight to quantise ahead",
    "Conv": "the patch convolution: a hundredth of the arithmetic, and all that follows reads it",
}
CONSTANTS = {"pooling": "a small constant matrix that pools patches", "net.final.weight": "last Linear"}
BETWEEN = "stands between products, where float32 costs little"


@dataclass(frozen=True)
class Kept:
    """Nodes of one graph that are float32 for one reason.

    Attributes:
        encoder: vision, points or aligner.
        operator: of the nodes.
        weight: name of the weight of a product; empty for what has none.
        count: of the nodes.
        reason: why.
    """

    encoder: str
    operator: str
    weight: str
    count: int
    reason: str

    def __str__(self) -> str:
        return f"{self.encoder:<8} {self.operator:<20} {self.count:>4}  {self.weight or '-'}: {self.reason}"


def audit(path: Path, precision: str, provider: str = CPU) -> Iterator[Kept]:
    """What stays float32 in the graphs of a precision for a provider, and why; float32 encoders are left out.

    Raises:
        BadInput: all its encoders are float32.
        BadBundle: the bundle does not hold it.
    """
    bundle, name = Bundle(path), canonical(precision)
    formats = formats_of(name)
    if set(formats.values()) == {FP32}:
        raise BadInput(f"--precision {precision}: all of it is float32; name one that is not")
    record = bundle.manifest.get("calibration", {}).get(name, {})
    for encoder in ENCODERS:
        graph = bundle.graph(encoder, name, provider)
        if formats[encoder] != FP32:
            yield from examine(
                encoder, bundle.require_file(graph.file), reasons_of(record, encoder, static=provider == TENSORRT)
            )


def reasons_of(record: Mapping[str, Any], encoder: str, *, static: bool) -> dict[str, str]:
    """Why products stay float32, as the export wrote it down; with ranges that were set before, more may."""
    choices = record.get("products", {}).get(encoder, [])
    kept = {choice["weight"]: choice["reason"] for choice in choices if choice["form"] != "int8"}
    kept |= {choice["weight"]: choice["exact"] for choice in choices if static and choice.get("exact")}
    return dict(record.get("islands", {}).get(encoder, {})) | kept


def examine(encoder: str, file: Path, reasons: Mapping[str, str]) -> Iterator[Kept]:
    """The float32 nodes of one graph, those of a kind together."""
    counts: Counter[tuple[str, str]] = Counter()
    for node in ir.load(file).graph.all_nodes():
        weights = [str(value.name) for value in node.inputs if value is not None and value.is_initializer()]
        lowered = any(name.endswith((INTEGERS, HALF)) for name in weights) or any(
            value is not None and value.dtype in (ir.DataType.FLOAT16, ir.DataType.INT8) for value in node.inputs
        )
        if node.op_type in MOVES or lowered or restored(node):
            continue
        product = node.op_type in PRODUCTS and bool(weights)
        counts[node.op_type, weights[0] if product else ""] += 1
    for (operator, weight), count in counts.items():
        known = reasons.get(weight) or CONSTANTS.get(weight)
        unknown = "left float32 by the export" if weight and operator != "Conv" else REASONS.get(operator, BETWEEN)
        reason = known or unknown
        yield Kept(encoder, operator, weight, count, reason)


def restored(node: ir.Node) -> bool:
    """Whether a product's factors were INT8 just before, as TensorRT reads it."""
    makers = [value.producer() for value in node.inputs if value is not None]
    return any(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)
