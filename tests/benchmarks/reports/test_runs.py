"""Runs read from rows: what counts, what stays apart, and what is refused."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.reports.runs import TOKEN, TOTAL, read_run, read_runs
from stllm_edge.runtime.errors import BadInput

Writer = Callable[..., Path]


def test_warm_up_does_not_count_and_answers_keep_their_stages(
    tmp_path: Path, write_run: Writer, run_recipe: Any
) -> None:
    run = read_run(write_run(tmp_path / "a.jsonl", run_recipe(questions=3, repetitions=2)))
    assert run.name == "small"
    assert len(run.answers) == 3 * 3 * 2
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run/results.jsonl", run_recipe(questions=3, repetitions=2))
    assert read_run(tmp_path / "run").answers == run.answers
    assert {answer.repetition for answer in run.answers} == {0, 1}
    cold, warm, _ = run.parts
    assert cold.stages[:3] == ["process", "imports", "load_vision"]
    assert warm.stages[0] == "video"
    for answer in run.answers:
        parts = sum(seconds for stage, seconds in answer.seconds.items() if stage not in (TOTAL, "first_token"))
        assert parts == pytest.approx(answer.seconds[TOTAL])
        assert answer.measured[TOKEN] == pytest.approx(answer.seconds["decode"] / 11)
    assert warm.range_of(lambda answer: answer.voxels) == (30_000, 30_200)
    assert len(run.sensors) == 3 * 3 * 3 * 8
    assert run.spins == pytest.approx([3e-4] * 27, rel=0.2)


def test_rows_of_different_token_counts_stay_apart(tmp_path: Path, write_run: Writer, run_recipe: Any) -> None:
    prompts = [100, 101, 102, 103, 200, 400]
    recipe = run_recipe(questions=6, repetitions=1, phases=("warm",), prompt=lambda question: prompts[question])
    parts = read_run(write_run(tmp_path / "a.jsonl", recipe)).parts
    found = [part.range_of(lambda answer: answer.prompt_tokens) for part in parts]
    assert found == [(100, 102), (103, 103), (200, 200), (400, 400)]
    assert [part.questions for part in parts] == [3, 1, 1, 1]


@pytest.mark.parametrize("column", ["new_tokens", "frames"])
def test_answers_of_another_length_or_clip_stay_apart(
    column: str, tmp_path: Path, write_run: Writer, run_recipe: Any
) -> None:
    path = write_run(tmp_path / "a.jsonl", run_recipe(questions=4, repetitions=1, phases=("warm",)))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row.get("sample") == "P01-002" and column in row:
            row[column] += 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [part.questions for part in read_run(path).parts] == [3, 1]


def test_a_run_that_was_cut_off_counts_as_far_as_it_goes(
    tmp_path: Path, write_run: Writer, run_recipe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_run(tmp_path / "a.jsonl", run_recipe(questions=3, repetitions=2)).read_bytes()
    cut = tmp_path / "cut.jsonl"
    # in the middle of a row of the last answer
    cut.write_bytes(whole[: whole.rindex(b'"stage": "prefill"')])
    with caplog.at_level(logging.INFO, "stllm_edge"):
        run = read_run(cut)
    assert run.end is None
    assert len(run.answers) == 17
    assert all(TOTAL in answer.seconds for answer in run.answers)
    assert "its last line is incomplete" in caplog.text
    assert run.unfinished == 1
    assert "1 answers were not finished" in caplog.text


def test_a_run_that_was_resumed_is_one_run(tmp_path: Path, write_run: Writer, run_recipe: Any) -> None:
    recipe = run_recipe(questions=2, repetitions=2, phases=("warm",))
    path = write_run(tmp_path / "a.jsonl", recipe)
    first = path.read_text()
    path.write_text(first.replace('"complete"', '"interrupted"') + first)
    run = read_run(path)
    assert len(run.answers) == 4
    assert run.end is not None
    assert run.end["reason"] == "complete"


def test_two_bundles_in_turn_are_two_runs(tmp_path: Path, write_run: Writer, run_recipe: Any) -> None:
    recipes = [run_recipe(questions=2, repetitions=2, bundle=bundle) for bundle in ("aa", "bb")]
    path = write_run(tmp_path / "a.jsonl", *recipes)
    first, second = read_runs([path])
    assert (first.about["bundle"], second.about["bundle"]) == ("aa", "bb")
    assert first.alternated == second.alternated == 2
    with pytest.raises(BadInput, match=r"a.jsonl: holds 2 runs \(small of .*, small of .*\); expected one"):
        read_run(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no row"),
        ('{"schema": "stllm-edge.latency/2", "kind": "run"}\n', "line 1: has schema 'stllm-edge.latency/2'"),
        ('{"schema": 1, "header": {}}\n', "has schema 1"),
        ("[1, 2]\n", "line 1: is no row"),
        ("{]\n", "line 1: "),
        ("\x00\xff\n", "line 1: "),
    ],
)
def test_files_of_something_else_are_refused(content: str, said: str, tmp_path: Path, stllm: Any) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(content, encoding="latin-1")
    for arguments in (["show", path], ["compare", path, path]):
        result = stllm("bench", *arguments)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert said in result.stderr


def test_a_mix_of_schemas_is_refused_by_its_line(
    tmp_path: Path, write_run: Writer, run_recipe: Any, stllm: Any
) -> None:
    path = write_run(tmp_path / "a.jsonl", run_recipe(questions=1, repetitions=1))
    lines = path.read_text().splitlines()
    lines[7] = lines[7].replace("latency/1", "latency/9")
    path.write_text("\n".join(lines) + "\n")
    result = stllm("bench", "show", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "line 8: has schema 'stllm-edge.latency/9', this program reads stllm-edge.latency/1" in result.stderr


def test_rows_without_an_answer_or_without_their_run_are_refused(
    tmp_path: Path, write_run: Writer, run_recipe: Any
) -> None:
    path = write_run(tmp_path / "a.jsonl", run_recipe(questions=1, repetitions=1))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))
    with pytest.raises(BadInput, match="holds no complete answer; run stllm-bench latency until one is measured"):
        read_runs([path])
    path.write_text("".join(lines[1:]))
    with pytest.raises(BadInput, match="the row that tells of run 5f2c9a1e is missing; give the whole file"):
        read_runs([path])
    with pytest.raises(BadInput, match=r"none.jsonl: cannot be read \(No such file"):
        read_runs([tmp_path / "none.jsonl"])
