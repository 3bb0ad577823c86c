"""The file of a run: whole questions or nothing, whatever happens to disk and process."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.latency.rows import SCHEMA, Row, schema
from stllm_edge.benchmarks.latency.store import Store
from stllm_edge.runtime.errors import BadInput

FILL = {"string": "text", "number": 1.5, "integer": 3, "boolean": True, "null": None}


def row(kind: str, **values: Any) -> Row:
    """A row whose columns are of the right types."""
    made: Row = {}
    for name, said in schema()["$defs"][kind]["properties"].items():
        types = said.get("type", "null")
        default = FILL[types if isinstance(types, str) else types[0]]
        made[name] = said.get("const", said.get("enum", [default])[0])
    return made | values


ANSWER = [row("stage", stage="vision"), row("interval"), row("stage", stage="total")]


def test_rows_are_on_disk_when_they_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "new/results.jsonl"
    with Store.open(path) as store:
        store.append([row("run")])
        store.append(ANSWER)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert lines == store.rows == [row("run"), *ANSWER]
    assert {line["schema"] for line in lines} == {SCHEMA}
    with Store.open(path) as store:
        assert store.rows == lines


@pytest.mark.parametrize("cut", ["{", '{"schema": "stllm-edge.latency/1", "ki', json.dumps(ANSWER[0]) + "\n"])
def test_what_a_crash_left_of_a_question_is_cut_off(cut: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Store.open(path) as store:
        store.append([row("run"), *ANSWER, row("sensor")])
    whole = path.read_text()
    path.write_text(whole + json.dumps(ANSWER[0]) + "\n" + cut)
    with Store.open(path) as store:
        assert path.read_text() == whole
        store.append(ANSWER)
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()[-3:]] == ["stage", "interval", "stage"]


def test_a_full_disk_is_one_line_and_rows_before_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.jsonl"
    with Store.open(path) as store:
        store.append([row("run"), *ANSWER])
        whole = path.read_text()

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(BadInput, match=r"cannot be written \(No space left on device\); rows before"):
            store.append(ANSWER)
        monkeypatch.undo()
        assert path.read_text() == whole
        store.append(ANSWER)
    assert path.read_text().startswith(whole)
    assert len(path.read_text().splitlines()) == 7


def test_a_file_without_an_answer_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Store.open(path) as store:
        store.append([row("run"), row("end", reason="failed")])
    with Store.open(path) as store:
        assert store.rows == []
    assert not path.exists()


def test_two_runs_cannot_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Store.open(path), pytest.raises(BadInput, match="another process is writing to it"), Store.open(path):
        pass


def test_files_of_something_else_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"id": 1}\n')
    with pytest.raises(BadInput, match="line 1: is no row of a benchmark of latency"), Store.open(path):
        pass
    assert path.read_text() == '{"id": 1}\n'


def test_a_folder_in_its_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(BadInput, match="cannot be written"), Store.open(tmp_path / "results.jsonl"):
        pass
