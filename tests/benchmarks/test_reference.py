"""stllm-bench reference: a bundle beside the PyTorch model run its authors' way."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.checkpoints import TINY, write_checkpoint

SHORT = ("--frames", 2, "--max-new-tokens", 2, "--runs", 2, "--quant", "F32", "--threads", 1)
STAGES = ["vision", "points", "aligner", "prefill", "decode"]


@pytest.fixture
def compare(stllm: Any, tiny_checkpoint: Path, tiny_bundle: Path) -> Any:
    def run(*more: object, checkpoint: Path = tiny_checkpoint) -> Any:
        return stllm("bench", "reference", "--ckpt", checkpoint, "--bundle", tiny_bundle, *SHORT, *more)

    return run


def test_every_stage_is_run_on_both_sides_and_gives_the_same(compare: Any) -> None:
    result = compare("--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    rows = report["rows"]
    assert [row["stage"] for row in rows] == STAGES
    assert report["ours"] == "fp32 encoders, F32, 1 threads, on the CPU"
    for row in rows:
        assert row["error"] < 1e-3 if row["stage"] in ("prefill", "decode") else row["error"] < 3e-5
        low, value, high = (row["ratio"][key] for key in ("low", "value", "high"))
        assert 0 < low <= value <= high
        assert (row["frames"], row["runs"], row["note"]) == (2, 2, "")
        assert row["ours_ms"] > 0 < row["theirs_ms"]


def test_the_table_has_a_line_a_stage_and_their_sum(compare: Any) -> None:
    result = compare()
    assert result.exit_code == 0, result.output
    titles, *lines, last = result.stdout.splitlines()
    assert titles.split()[:4] == ["stage", "of", "ours,", "ms"]
    assert [line.split("  ")[0].strip() for line in lines] == [*STAGES, "all but decode"]
    assert last.startswith("ours: fp32 encoders, F32, 1 threads, on the CPU; theirs: PyTorch ")


def test_another_checkpoint_is_told_and_shows(compare: Any, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", TINY, seed=5)
    result = compare("--json", checkpoint=other)
    assert result.exit_code == 0, result.output
    assert "is not the checkpoint that" in result.stderr
    assert min(row["error"] for row in json.loads(result.stdout)["rows"]) > 0.1


def test_what_does_not_fit_is_run_on_fewer_frames_or_said(compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {
        "vision": {2: 3e9, 1: 1e6},
        "points": {2: 1e6, 1: 1e6},
        "aligner": {2: 1e6, 1: 1e6},
        "llm": {2: 9e9, 1: 8e9},
    }
    monkeypatch.setattr("stllm_edge.benchmarks.reference.available", lambda: 2_000_000_000)
    monkeypatch.setattr(
        "stllm_edge.benchmarks.reference.bytes_needed",
        lambda geometry, frames, voxels, text: {part: int(sizes[frames]) for part, sizes in needs.items()},
    )
    result = compare("--json")
    assert result.exit_code == 0, result.output
    rows = {row["stage"]: row for row in json.loads(result.stdout)["rows"]}
    assert (rows["vision"]["frames"], rows["points"]["frames"]) == (1, 2)
    assert re.match(
        r"at 2 frames it does not fit: theirs needs 3\.0 GB beside 0\.\d GB of ours", rows["vision"]["note"]
    )
    for stage in ("prefill", "decode"):
        assert (rows[stage]["frames"], rows[stage]["ratio"], rows[stage]["predicted_mb"]) == (None, None, 8000.0)
        assert rows[stage]["note"].startswith("at 1 frames it does not fit: theirs needs 8.0 GB")
    table = compare().stdout
    assert "all but decode" not in table
    assert "prefill: at 1 frames it does not fit: theirs needs 8.0 GB" in table


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--runs", 0), "--runs 0: expected at least 1"),
        (("--frames", 0), "--frames 0: expected at least 1"),
        (("--max-new-tokens", 0), "--max-new-tokens 0: expected at least 1"),
        (("--scene", "room"), "--scene and --video go together"),
        (("--quant", "Q2_K"), "--quant Q2_K: "),
        (("--ckpt", "nowhere"), "checkpoint nowhere: not a directory"),
    ],
)
def test_options_that_cannot_be(compare: Any, more: tuple[object, ...], words: str) -> None:
    result = compare(*more)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    assert words in result.stderr


def test_a_bundle_of_other_sizes(compare: Any, stllm: Any, tmp_path: Path) -> None:
    assert stllm("bench", "checkpoint", "--size", "small", "--out", tmp_path / "small").exit_code == 0
    result = compare(checkpoint=tmp_path / "small")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(f"was made from a model of other sizes than {tmp_path / 'small'}\n")
