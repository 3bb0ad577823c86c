"""Two runs on the same questions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.rea.results import Header, write_results

HEADER = Header(bundle="a" * 64, rea="b" * 64, options={}, subset={}, ids=["1", "2", "3", "4"])
TRUTH = ["In front.", "Behind.", "To the left.", "To the right."]


def write(path: Path, answers: list[str], header: Header = HEADER) -> Path:
    records = [
        {"id": name, "question_type": "relative_direction", "query": "Where?", "gt": truth, "pred": answer}
        for name, truth, answer in zip(header.ids, TRUTH, answers, strict=False)
    ]
    write_results(path, header, records)
    return path


def test_identical_answers_and_points_are_counted(tmp_path: Path, stllm: Any) -> None:
    ours = write(tmp_path / "ours.jsonl", ["in front", "Behind.", "Behind.", "Behind."])
    reference = write(tmp_path / "reference.jsonl", ["In front.", "Behind.", "To the left.", "Behind."])
    printed = stllm("bench", "rea", "compare", ours, reference).stdout
    assert "4 questions: 50.00 % of the answers identical; 50.00 % and 75.00 % right, -25.00 points" in printed
    found = json.loads(stllm("bench", "rea", "compare", ours, reference, "--json").stdout)
    assert found["differing"] == ["1", "3"]


@pytest.mark.parametrize("other", [replace(HEADER, rea="c" * 64), replace(HEADER, ids=["1", "2"])])
def test_runs_on_other_questions_are_refused(other: Header, tmp_path: Path, stllm: Any) -> None:
    ours = write(tmp_path / "ours.jsonl", TRUTH)
    result = stllm("bench", "rea", "compare", ours, write(tmp_path / "reference.jsonl", TRUTH, other))
    assert result.exit_code == 2
    assert "answers to different questions" in result.stderr
