"""One comparison: a tick, a cross, or a report."""

import json

import numpy as np
import pytest
from stllm_edge.export.comparison import Row
from stllm_edge.runtime.bundle.table import Tolerance

VALUES = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)


LIMITS = Tolerance.around(1e-2)


def compare(values: np.ndarray) -> Row:
    return Row.compare("fp32", "vision", values, VALUES.astype(np.float64), LIMITS, "file")


@pytest.mark.parametrize(("factor", "passed"), [(0.9, True), (1.1, False)])
def test_a_difference_passes_up_to_the_limit(factor: float, passed: bool) -> None:
    noise = np.random.default_rng(1).standard_normal(VALUES.shape)
    row = compare(VALUES + factor * 1e-2 * noise * np.linalg.norm(VALUES) / np.linalg.norm(noise))
    assert row.passed is passed
    assert row.rel_rms == pytest.approx(factor * 1e-2)
    assert str(row)[0] == ("✓" if passed else "✗")


@pytest.mark.parametrize("scale", [1.5, 1.006, 0.994, -1.0, 0.0, np.nan])
def test_a_wrong_scale_fails_though_the_angle_is_right(scale: float) -> None:
    assert compare(VALUES * scale).passed is False


def test_a_limit_can_follow_the_model_up_to_the_most_that_is_allowed() -> None:
    row = compare(VALUES + 0.03 * np.roll(VALUES, 1))
    assert row.passed is False
    assert row.following(0.02, 2, least=LIMITS, most=0.05).passed is True
    assert row.following(0.01, 2, least=LIMITS, most=0.05).passed is False
    assert row.following(1.0, 2, least=LIMITS, most=0.02).passed is False
    assert row.following(0.0, 2, least=Tolerance.around(0.04), most=0.05).passed is True
    assert row.following(float("nan"), 2, least=LIMITS, most=0.05).passed is True
    limit = row.following(0.01, 2, least=LIMITS, most=0.05).limit
    assert "2 times what the format costs this model in PyTorch, 0.01, 0.01 to 0.05" in limit


def test_logits_are_compared_as_distributions_of_the_next_token() -> None:
    same = compare(VALUES).with_tokens(VALUES + 3, VALUES)
    assert same.divergence == pytest.approx(0, abs=1e-9)
    assert same.agreement == 1
    other = compare(VALUES).with_tokens(-VALUES, VALUES)
    probabilities = [np.exp(sign * VALUES) / np.exp(sign * VALUES).sum(axis=1, keepdims=True) for sign in (1, -1)]
    expected = (probabilities[0] * np.log(probabilities[0] / probabilities[1])).sum(axis=1).mean()
    assert other.divergence == pytest.approx(expected, rel=1e-5)
    assert other.agreement == 0
    assert "KL " in str(other)
    assert "top-1 0.0%" in str(other)


def test_a_row_is_json_without_numbers_that_json_does_not_have() -> None:
    row = Row("fp32", "files", False, "as in the manifest")
    assert json.loads(json.dumps(row.to_json(), allow_nan=False))["rel_rms"] is None
    assert "nan" not in str(row)
