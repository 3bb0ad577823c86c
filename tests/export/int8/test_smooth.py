"""Outlier channels: plain INT8 loses what is beside them, folding keeps it, and the function stays the same."""

from typing import Any

import pytest
import torch
from stllm_edge.export.int8.numerics import quantise_products
from stllm_edge.export.int8.observed import observe
from stllm_edge.export.int8.products import choose
from stllm_edge.export.int8.smooth import find_folds, fold
from stllm_edge.export.model.vision import Layer as PlainLayer
from stllm_edge.export.onnx.graphs import TowerLayer, transpose_linears
from stllm_edge.runtime.bundle.geometry import VisionGeometry
from torch import Tensor, nn

WIDTH, ROWS = 64, 32
GEOMETRY = VisionGeometry(image_size=32, patch_size=8, width=WIDTH, layers=1, heads=2, mlp=128, grid=2)


class Layer(nn.Module):
    """One layer of a tower over rows."""

    def __init__(self, layer: TowerLayer):
        super().__init__()
        self.layer = layer

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(rows, ROWS)


@pytest.fixture
def layer(randomise: Any) -> Layer:
    """A layer whose norms make 1 % of the channels thirty times as large, which its weights take back."""
    plain = randomise(PlainLayer(GEOMETRY), 3).requires_grad_(False)
    made = Layer(TowerLayer(plain))
    transpose_linears(made)
    factors = torch.ones(WIDTH)
    factors[5] = 30
    inner = made.layer
    for norm, readers in (
        (inner.norm1, [inner.attention.query, inner.attention.keys[0], inner.attention.values[0]]),
        (inner.norm2, [inner.feed_forward.inner]),
    ):
        norm.weight.mul_(factors)
        norm.bias.mul_(factors)
        for reader in readers:
            reader.weight.div_(factors[:, None])
    return made


def error(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).norm() / reference.norm())


def observed(layer: Layer) -> dict[str, Any]:
    with torch.inference_mode(), observe(layer) as seen:
        for _ in range(4):
            layer(torch.randn(ROWS, WIDTH))
    return seen


def test_folding_keeps_the_function_and_what_is_beside_outliers(layer: Layer) -> None:
    rows = torch.randn(ROWS, WIDTH)
    with torch.inference_mode():
        reference = layer(rows) - rows
        seen = observed(layer)
        folds = find_folds(layer, seen)
        choices = choose(layer, seen, folds)
        products = set(seen)
        fold(layer, folds)
        assert error(layer(rows) - rows, reference) < 1e-5
        quantise_products(layer, dict.fromkeys(products))
        folded = error(layer(rows) - rows, reference)
    assert {choice.form for choice in choices} == {"int8"}
    assert folded < 0.03
    assert len(folds) >= 2
    assert all(one.gain < 0.5 for one in folds[:2])


def test_without_folding_the_outliers_take_the_others_with_them(layer: Layer) -> None:
    rows = torch.randn(ROWS, WIDTH)
    with torch.inference_mode():
        reference = layer(rows) - rows
        seen = observed(layer)
        # the products that lose most are named and left out
        kept = [choice for choice in choose(layer, seen, ()) if choice.form == "float32"]
        quantise_products(layer, dict.fromkeys(seen))
        assert error(layer(rows) - rows, reference) > 0.06
    assert kept
    assert all("INT8 changes it by" in choice.reason for choice in kept)


def test_nothing_is_folded_where_it_does_not_help(randomise: Any) -> None:
    made = Layer(TowerLayer(randomise(PlainLayer(GEOMETRY), 3).requires_grad_(False)))
    transpose_linears(made)
    with torch.no_grad():
        for norm in (made.layer.norm1, made.layer.norm2):
            norm.weight.fill_(1)
            norm.bias.zero_()
    assert not [one for one in find_folds(made, observed(made)) if one.before[0][0].endswith("norm1.weight")]
