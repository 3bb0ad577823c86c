"""What a question costs of which only a part is new."""

import json
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks import reuse
from stllm_edge.benchmarks.reuse import soak
from stllm_edge.runtime import Options


def test_every_claim_has_a_ratio(stllm: Any, tiny_bundle: Path, sample: tuple[Path, Path]) -> None:
    sources = ("--scene", sample[0], "--video", sample[1], "--quant", "Q8_0", "--threads", 1)
    result = stllm("bench", "reuse", "--bundle", tiny_bundle, *sources, "-n", 2, "--runs", 1, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert [row["what"] for row in rows][3:] == ["one new frame", "follow-up", "live view, time to first token"]
    assert all(row["ratio"] > 0 and len(row["ratios"]) == 1 for row in rows)


def test_many_questions_leave_a_session_as_it_is(tiny_bundle: Path) -> None:
    found = soak(tiny_bundle, Options(quant="Q8_0", threads=1), 40)
    assert (found.questions, found.handles, found.threads, found.equal) == (40, 0, 0, True)
    assert found.growth < 0.2


def test_approximate_reuse_has_a_price(
    stllm: Any, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "RECOMPUTED", (0.3,))
    made = stllm("bench", "rea", "synth", "--out", tmp_path / "world", "--scenes", 1, "--clips", 1, "--val-share", 1)
    assert made.exit_code == 0, made.output
    where = ("--rea", tmp_path / "world/val.json", "--root", tmp_path / "world")
    result = stllm(
        "bench", "reuse", "--bundle", tiny_bundle, "--quant", "Q8_0", "--threads", 1, "-n", 2, *where, "--json"
    )
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["approximate"]
    assert [row["recompute"] for row in rows] == [0.3]
    assert all(row["questions"] >= 5 and row["prefill"] > 0 and 0 <= row["changed"] <= 1 for row in rows)
    assert all(row["divergence"] >= 0 and 0 <= row["closer"] <= 1 for row in rows)
