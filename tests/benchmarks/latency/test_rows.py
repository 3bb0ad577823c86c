"""Rows: what the schema allows is read, anything else is one line that says where and why."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from stllm_edge.benchmarks.latency.rows import Row, check_row, read_rows, schema
from stllm_edge.runtime.errors import BadInput

VALUES = (None, True, 7, -1.5, "text", [])
CASES = {
    "another schema": ({"schema": "stllm-edge.latency/9"}, "has schema 'stllm-edge.latency/9', this program reads"),
    "no row": ({"schema": ...}, "is no row of a benchmark of latency"),
    "a kind from elsewhere": ({"kind": "answer"}, "is of kind 'answer', known are run, file, stage"),
    "a list as kind": ({"kind": []}, r"is of kind \[\]"),
    "a column that is missing": ({"seconds": ...}, "lacks 'seconds'"),
    "a column too many": ({"second": 1.0}, "states 'second' as 1.0"),
    "a word for a number": ({"seconds": "1"}, "states 'seconds' as '1'"),
    "true for a number": ({"repetition": True}, "states 'repetition' as True"),
    "an unknown phase": ({"phase": "hot"}, "states 'phase' as 'hot'"),
}


def example(kind: str) -> Row:
    """A row of a kind, with the first value that its schema allows in each column."""
    row = {}
    for name, said in schema()["$defs"][kind]["properties"].items():
        choices = [said["const"]] if "const" in said else [*said.get("enum", ()), "text", 7, True, None]
        row[name] = next(value for value in choices if jsonschema.Draft202012Validator(said).is_valid(value))
    return row


KINDS = list(schema()["$defs"])


def changed(row: Row) -> Iterator[Row]:
    """The row with one column replaced by each of many values, without it, and with columns of other names."""
    for place, name in enumerate(row):
        yield {key: value for key, value in row.items() if key != name}
        yield {**row, name: VALUES[place % len(VALUES)]}
        yield {**row, name: VALUES[(place + 1) % len(VALUES)]}
    yield from ({**row, name: value} for name in ("joules_VDD_IN", "version_numpy", "other") for value in VALUES)


def accepted(row: Row) -> bool:
    try:
        check_row(row)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_judged_as_json_schema_judges_them(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    row = example(kind)
    assert accepted(row)
    verdicts = [accepted(other) for other in changed(row)]
    assert verdicts == [validator.is_valid(other) for other in changed(row)]
    assert True in verdicts
    assert False in verdicts


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_lines(*lines: Any, end: str = "\n") -> Path:
        file = tmp_path / "results.jsonl"
        file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end)
        return file

    return write_lines


def test_rows_come_back_as_they_were_written(write: Callable[..., Path]) -> None:
    rows = [example(kind) for kind in KINDS]
    assert read_rows(write(*rows)) == rows


@pytest.mark.parametrize(("change", "reason"), CASES.values(), ids=CASES)
def test_what_the_schema_refuses_is_said_with_its_line(
    change: dict[str, Any], reason: str, write: Callable[..., Path]
) -> None:
    row = {key: value for key, value in (example("stage") | change).items() if value is not ...}
    file = write(example("run"), row)
    with pytest.raises(BadInput, match=rf"{file}: line 2: {reason}.*; expected rows of stllm-bench latency"):
        read_rows(file)


@pytest.mark.parametrize("line", ["{", "[]", '{"schema": NaN}', "[" * 100_000])
def test_lines_that_are_no_rows_are_refused(line: str, write: Callable[..., Path]) -> None:
    with pytest.raises(BadInput, match="line 1: "):
        read_rows(write(line))


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_rows(tmp_path / "absent.jsonl")
    with pytest.raises(BadInput, match="holds no row"):
        read_rows(write("", end=""))


def test_what_a_crash_left_of_a_line_is_left_out(write: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    file = write(example("run"), '{"schema": "stllm-', end="")
    with caplog.at_level(logging.WARNING):
        assert read_rows(file) == [example("run")]
    assert "incomplete" in caplog.text
