"""Entries of REA's files: each reader gets what it asks for, and what is wrong is said with the entry's name."""

import json
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.runtime.errors import BadInput
from stllm_edge.runtime.inputs.entries import field, parse_conversation, read_entries

ASKED = [{"from": "human", "value": "<pointcloud><image> Where? "}, {"from": "gpt", "value": " Here.\n"}]


def test_a_reader_gets_what_it_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "rea.json"
    file.write_text(json.dumps([{"id": 1, "conversations": ASKED}, {"id": 2, "conversations": ASKED}]))
    assert read_entries("--rea", file, lambda entry: field(entry, "id", int)) == [1, 2]
    assert read_entries("--rea", file, parse_conversation) == [("Where?", "Here.")] * 2


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"id": "a"}, "entry 0 (id 'a') lacks metadata.fps; give a JSON file of the REA release"),
        ([], "entry 0 lacks metadata.fps"),
        ({"metadata": {"fps": True}}, "entry 0 has metadata.fps True, expected int"),
        ({"metadata": {"fps": "6"}}, "entry 0 has metadata.fps '6', expected int"),
    ],
)
def test_an_entry_without_what_is_needed_is_named(entry: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "rea.json"
    file.write_text(json.dumps([entry]))
    with pytest.raises(BadInput) as caught:
        read_entries("--train", file, lambda entry: field(entry, "metadata.fps", int))
    assert str(caught.value).startswith(f"--train {file}: {words}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "found dict"),
        (b"[]", "an empty"),
    ],
)
def test_a_file_of_something_else_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "rea.json"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=f"--rea .*{words}"):
        read_entries("--rea", file, parse_conversation)
