"""A job's file of JSON lines: what it takes up from, and what it leaves alone."""

import resource
from pathlib import Path

import pytest
from stllm_edge.benchmarks.rea.journal import Item, Journal
from stllm_edge.runtime.errors import BadInput


def read_nothing(whole: bytes) -> list[Item]:
    return []


@pytest.mark.parametrize("content", ["some notes", "some notes\nof mine\n", "[]"])
def test_a_file_of_something_else_is_not_touched(content: str, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text(content)
    with (
        pytest.raises(BadInput, match="notes: exists and is not a file of this command; choose another --out"),
        Journal.open(path, {}, read_nothing),
    ):
        pass
    assert path.read_text() == content


def test_a_header_that_a_crash_tore_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text('{"header": {"jo')
    with Journal.open(path, {"job": 1}, read_nothing) as journal:
        journal.append({"id": "é"})
    assert path.read_text() == '{"header": {"job": 1}}\n{"id": "\\u00e9"}\n'


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with (
        pytest.raises(BadInput, match=r"cannot be written \(Is a directory\); choose another --out"),
        Journal.open(tmp_path, {}, read_nothing),
    ):
        pass


def test_no_more_space(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal.open(path, {"job": 1}, read_nothing) as journal:
        journal.append({"id": "a"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, limits[1]))
        try:
            with pytest.raises(BadInput, match=r"cannot be written \(File too large\); lines before are kept"):
                journal.append({"id": "b" * 100})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text().splitlines()[:2] == ['{"header": {"job": 1}}', '{"id": "a"}']
    assert [item["id"] for item in journal.items] == ["a"]
