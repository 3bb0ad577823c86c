"""A bundle's encoders in all precisions, side by side."""

import json
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.precisions.commands import FORMS
from stllm_edge.benchmarks.precisions.measure import conclude

MIX = "vision=int8,points=fp32,aligner=int8"


def test_precisions_stand_side_by_side(int8_bundle: Path, world: list[object], stllm: Any) -> None:
    options = ["--bundle", int8_bundle, *world, "--runs", 2, "--precision", MIX]
    result = stllm("bench", "encoders", *options, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    # one graph of the points serves both
    named = [(row["encoder"], row["precision"]) for row in rows]
    assert named == [("vision", "fp32"), ("vision", MIX), ("aligner", "fp32"), ("aligner", MIX)]
    for plain, lowered in zip(rows[::2], rows[1::2], strict=True):
        assert lowered["size_mb"] < plain["size_mb"]
        assert 0 == plain["error"] < lowered["error"] < 0.1
        assert lowered["cosine"] > 0.99
        assert min(plain["ms"], lowered["ms"], lowered["growth_mb"]) > 0


def test_other_forms_of_the_same_products_stand_beside(int8_bundle: Path, world: list[object], stllm: Any) -> None:
    chosen = [word for form in FORMS for word in ("--form", form)]
    options = ["--bundle", int8_bundle, *world, "--runs", 1, "--precision", "int8", "--encoder", "vision", *chosen]
    result = stllm("bench", "encoders", *options, "--json")
    assert result.exit_code == 0, result.output
    rows = {row["precision"]: row for row in json.loads(result.stdout)}
    assert list(rows) == ["fp32", "int8", *FORMS]
    # the same integers, offset; one scale for all that comes; blocks are finer, and 4 bits coarser
    assert rows["unsigned"]["error"] == pytest.approx(rows["int8"]["error"], rel=0.01)
    assert rows["int8"]["error"] / 3 < rows["static"]["error"] < 3 * rows["int8"]["error"]
    assert rows["blocks8"]["error"] < rows["blocks4"]["error"] < 0.5
    assert rows["blocks4"]["size_mb"] < rows["blocks8"]["size_mb"] < rows["fp32"]["size_mb"]


def test_words_say_when_a_lower_precision_is_slower() -> None:
    assert conclude("fp32", 1.0) == ""
    assert "slower here than fp32: this CPU has no products of halves" in conclude("fp16", 1.4)
    assert "slower here than fp32" in conclude("int8", 1.2)
    assert conclude("int8", 1.0) == "no faster here than fp32"
    assert conclude("int8", 0.4) == "2.5 times as fast here as fp32"


def test_one_precision_alone_cannot_be_compared(int8_bundle: Path, stllm: Any) -> None:
    result = stllm("bench", "encoders", "--bundle", int8_bundle, "--precision", "fp32")
    assert result.exit_code == 2
    assert "a comparison takes fp32 and at least one other" in result.output
