"""The comparisons of encoders with their plain forms, at a small size."""

import json
from dataclasses import replace
from typing import Any

import pytest
from stllm_edge.benchmarks import encoders
from stllm_edge.benchmarks.checkpoints import TINY


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    vision = replace(TINY.vision, image_size=384, patch_size=96)
    monkeypatch.setattr(encoders, "FULL", replace(TINY, vision=vision))


@pytest.mark.parametrize(
    "compare",
    [
        lambda: encoders.compare_points(900, 2),
        lambda: encoders.compare_vision(2, 2),
        lambda: encoders.compare_aligner(2, 500, 2),
    ],
    ids=["points", "vision", "aligner"],
)
def test_both_forms_compute_the_same(compare: Any, small: None) -> None:
    comparison = compare()
    assert comparison.runs == 2
    assert comparison.error < 1e-5
    assert comparison.ratio > 0
    assert comparison.growth_mb > 0
    assert comparison.flops is None or comparison.flops < 1
    assert json.loads(comparison.to_json())["what"] == comparison.what
    assert f"rel-rms {comparison.error:.1e}" in str(comparison)


def test_maps_are_compared_in_time_alone(small: None) -> None:
    comparison = encoders.compare_maps(900, 2)
    assert comparison.error is None
    assert "kernel maps, 900 voxels" in str(comparison)
