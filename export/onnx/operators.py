"""Operators that are traced as one node each, because providers want them in different forms: see `expansion`.

In PyTorch they compute what is written here; in a traced graph each is one node of the domain `stllm`.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...runtime.host.maps import SLAB_OFFSETS

__all__ = ["DOMAIN", "PLANES", "attention", "feed_forward", "slab_convolution", "table_convolution"]

DOMAIN = "stllm"
PLANES = 3


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of [B, L, W] queries to [B, K, W] keys and values, [B, L, W]."""
    if torch.compiler.is_exporting():
        return traced("Attention", (query, key, value), query.shape, heads=heads)
    split = (values.unflatten(-1, (heads, -1)).transpose(1, 2) for values in (query, key, value))
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def feed_forward(
    rows: Tensor, inner: Tensor, inner_bias: Tensor, outer: Tensor, outer_bias: Tensor, approximate: str
) -> Tensor:
    """Linear, GELU, Linear on rows [M, W]; the weights are [in, out], `approximate` is none or tanh."""
    if torch.compiler.is_exporting():
        inputs = (rows, inner, inner_bias, outer, outer_bias)
        return traced("FeedForward", inputs, (rows.shape[0], outer.shape[1]), approximate=approximate)
    return F.gelu(rows @ inner + inner_bias, approximate=approximate) @ outer + outer_bias


def slab_convolution(
    hidden: Tensor, kernel: Tensor, bias: Tensor, rows: Tensor, bounds: Tensor, offsets: Tensor, place: Tensor
) -> Tensor:
    """Sparse 3x3x3 convolution, [N+1, Cin] -> [N+1, Cout]; the last row is zero on both sides.

    Args:
        hidden: [N+1, Cin].
        kernel: [27, Cin, Cout].
        bias: [Cout].
        rows: as in `Slabs`, like the three that follow.
        bounds: where the slabs' tables begin in `rows`.
        offsets: kernel offsets of the slabs.
        place: [3, N+1].
    """
    if torch.compiler.is_exporting():
        inputs = (hidden, kernel, bias, rows, bounds, offsets, place)
        return traced("SlabConvolution", inputs, (place.shape[1], kernel.shape[2]))
    out = hidden.new_zeros(place.shape[1], kernel.shape[2])
    used = iter(offsets.split(SLAB_OFFSETS * PLANES))
    limits = bounds.tolist()
    spans = itertools.pairwise(limits)
    for plane in place:
        written = []
        for size in SLAB_OFFSETS:
            begin, end = next(spans)
            gathered = hidden.index_select(0, rows[begin:end]).reshape(-1, size * hidden.shape[1])
            written.append(gathered @ kernel.index_select(0, next(used)).flatten(0, 1))
        out += F.pad(torch.cat(written), (0, 0, 0, 1)).index_select(0, plane)
    out[:-1] += bias
    return out


def table_convolution(hidden: Tensor, kernel: Tensor, bias: Tensor, table: Tensor) -> Tensor:
    """Sparse 3x3x3 convolution, [N+1, Cin] -> [N+1, Cout]; the last row is zero on both sides.

    Args:
        hidden: [N+1, Cin].
        kernel: [27, Cin, Cout].
        bias: [Cout].
        table: [N, 27] int32, the rows that each voxel reads.
    """
    if torch.compiler.is_exporting():
        inputs = (hidden, kernel, bias, table)
        return traced("TableConvolution", inputs, (table.shape[0] + 1, kernel.shape[2]))
    gathered = hidden.index_select(0, table.flatten()).reshape(len(table), -1)
    return F.pad(gathered @ kernel.flatten(0, 1) + bias, (0, 0, 0, 1))


def traced(operator: str, inputs: Sequence[Tensor], shape: Sequence[Any], **attributes: Any) -> Tensor:
    """One node with a float32 output."""
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{operator}", inputs, attributes, dtype=torch.float32, shape=shape, version=1
    )
