"""What is kept of a product's inputs, and that a range is chosen by what is rare too."""

import torch
from stllm_edge.export.int8.observed import LOUD, ROWS, observe
from stllm_edge.export.int8.products import choose
from stllm_edge.export.onnx.graphs import Projection
from torch import nn

WIDTH, COUNT = 32, 4000


def product() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Projection(nn.Linear(WIDTH, 16))).requires_grad_(False)


def test_loud_rows_are_kept_wherever_they_stand() -> None:
    module = product()
    rows = torch.randn(COUNT, WIDTH)
    rows[1237] *= 9
    with observe(module) as seen:
        for _ in range(30):
            module(rows)
    observed = seen["0.weight"]
    assert len(observed.rows) == ROWS
    assert len(observed.loudest) == LOUD
    assert (observed.loudest == rows[1237]).all(dim=1).any()
    assert not (observed.rows == rows[1237]).all(dim=1).any()


def test_a_range_does_not_cut_off_what_is_rare() -> None:
    """Attention looks for loud rows: cutting them off changes its result though usual rows gain by it."""
    module = product()
    rows = torch.randn(COUNT, WIDTH)
    rows[1237] *= 9
    with observe(module) as seen:
        module(rows)
    (choice,) = choose(module, seen, ())
    assert choice.threshold > 0.9 * rows.abs().max()
    assert choice.static_error > choice.error / 2
