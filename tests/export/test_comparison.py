"""One comparison: a tick, a cross, or a report."""

import json

import numpy as np
import pytest
from stllm_edge.export.comparison import Row
from stllm_edge.runtime.bundle.table import FUSED, STAGES

VALUES = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("part", "stage", "bounds"),
    [("fp32", "vision", ""), ("fp32", "aligner", ""), ("fp32", "aligner", FUSED), ("F32", "prefill", "")],
)
def test_a_difference_passes_up_to_the_limit_of_its_stage(part: str, stage: str, bounds: str) -> None:
    limit = STAGES[stage].tolerances[bounds or part].rel_rms
    assert limit is not None
    for factor, passed in ((0.9, True), (1.1, False)):
        row = Row.compare(part, stage, VALUES * (1 + factor * limit), VALUES.astype(np.float64), "file", bounds)
        assert row.passed is passed
        assert row.rel_rms == pytest.approx(factor * limit, rel=0.05)
        assert str(row)[0] == ("✓" if passed else "✗")


def test_half_precision_has_a_limit_of_the_angle() -> None:
    turned = VALUES + 0.1 * np.roll(VALUES, 1)
    assert Row.compare("fp16", "points", VALUES * (1 + 1e-3), VALUES).passed is True
    assert Row.compare("fp16", "points", turned, VALUES).passed is False


def test_what_has_no_limit_is_reported_unless_it_is_no_number() -> None:
    assert Row.compare("Q4_K_M", "prefill", VALUES * 1.2, VALUES).passed is None
    assert Row.compare("Q4_K_M", "prefill", VALUES * np.nan, VALUES).passed is False


def test_a_row_is_json_without_numbers_that_json_does_not_have() -> None:
    row = Row("fp32", "files", float("nan"), float("nan"), False, "as in the manifest")
    assert json.loads(json.dumps(row.to_json(), allow_nan=False))["rel_rms"] is None
    assert "nan" not in str(row)
