"""Attention in the forms that providers run best; the traced modules only say `scaled_dot_product_attention`."""

from collections.abc import Callable
from typing import Any

from onnxscript import opset18 as op

__all__ = ["FORMS"]


def plain(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    """MatMul, Softmax, MatMul, which TensorRT fuses."""
    scale = op.Constant(value_float=query.shape[-1] ** -0.5)
    scores = op.MatMul(op.Mul(query, scale), op.Transpose(key, perm=[0, 1, 3, 2]))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


FORMS: dict[str, Callable[..., Any]] = {"portable": plain}
