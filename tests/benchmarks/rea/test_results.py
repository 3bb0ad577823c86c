"""Results on disk: what survives a crash, what is refused, and what is damaged."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from stllm_edge.benchmarks.rea.results import Header, open_results, read_results, write_predictions
from stllm_edge.runtime import BadInput

HEADER = Header("b" * 64, "r" * 64, {"frames": 4}, {"spec": "all"}, ["a", "b", "c"])


def record(name: str) -> dict[str, str]:
    return {
        "id": name,
        "question_type": "find_my_item",
        "query": f"{name}?",
        "gt": "Here.",
        "pred": "Thé\n\r.",
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Answers to c and a."""
    path = tmp_path / "out" / "results.jsonl"
    with open_results(path, HEADER) as results:
        results.append(record("c"))
        results.append(record("a"))
    return path


def test_answers_come_back_with_their_header(file) -> None:
    assert read_results(file) == (HEADER, [record("c"), record("a")])
    with open_results(file, HEADER) as results:
        assert results.items == [record("c"), record("a")]
        results.append(record("b"))
    assert [answer["id"] for answer in read_results(file)[1]] == ["c", "a", "b"]


@pytest.mark.parametrize("left", [1, 20, 300])
def test_a_torn_last_line_is_cut_off_on_resuming(file, left: int, caplog) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - left] if left < 300 else whole[:left])
    kept = 1 if left < 300 else 0
    assert len(read_results(file)[1]) == kept
    assert "its last line is incomplete" in caplog.text
    with open_results(file, HEADER) as results:
        assert len(results.items) == kept
        results.append(record("b"))
    assert [answer["id"] for answer in read_results(file)[1]] == ["c", "b"][1 - kept :]


@pytest.mark.parametrize("content", [b"", b'{"header": {"bun'])
def test_a_crash_before_the_header_was_whole(file, content: bytes) -> None:
    file.write_bytes(content)
    with open_results(file, HEADER) as results:
        assert results.items == []
    assert read_results(file) == (HEADER, [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bundle": "c" * 64}, r"is from another bundle \(bbbbbbbbbbbb, not cccccccccccc\)"),
        ({"rea": "s" * 64}, r"is from another REA file \(rrrrrrrrrrrr, not ssssssssssss\)"),
        ({"options": {"frames": 8}}, r"is from other options \(frames 4, not 8\)"),
        ({"options": {"frames": 4, "kv": "f16"}}, r"is from other options \(kv None, not f16\)"),
        ({"subset": {"spec": "first:3"}}, "is of another subset .*all.*not.*first:3"),
        ({"ids": ["a", "b"]}, "is of another subset"),
        ({"schema": 2}, "has schema 1, not 2"),
    ],
)
def test_answers_to_something_else_are_refused_and_left_alone(file, change, words: str) -> None:
    file.write_bytes(file.read_bytes() + b"torn")
    before = file.read_bytes()
    with (
        pytest.raises(BadInput, match=rf"results\.jsonl: {words}.*; give another --out, or delete it to start again"),
        open_results(file, replace(HEADER, **change)),
    ):
        pass
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "line 4 is damaged"),
        ("[]", "line 4 is damaged"),
        (json.dumps(record("a")), "line 4 is damaged .*id 'a' is unknown or not unique"),
        (json.dumps(record("d")), "line 4 is damaged .*id 'd' is unknown or not unique"),
        (json.dumps({**record("b"), "pred": None}), "line 4 is damaged .*lacks pred"),
    ],
)
def test_damaged_lines_are_named(file, line: str, words: str) -> None:
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(BadInput, match=words):
        read_results(file)
    with pytest.raises(BadInput, match=words), open_results(file, HEADER):
        pass


@pytest.mark.parametrize("content", ["3\n", "{}\n", '{"header": {}}\n', "nonsense\n", ""])
def test_a_file_of_something_else(tmp_path, content: str) -> None:
    (tmp_path / "results.jsonl").write_text(content)
    with pytest.raises(BadInput, match="its first line is no header"):
        read_results(tmp_path / "results.jsonl")


def test_two_runs_do_not_write_to_one_file(file) -> None:
    with (
        open_results(file, HEADER),
        pytest.raises(BadInput, match="another process is writing to it"),
        open_results(file, HEADER),
    ):
        pass


def test_predictions_are_in_the_order_of_the_data_set(file, tmp_path) -> None:
    write_predictions(tmp_path / "p.json", *read_results(file))
    found = json.loads((tmp_path / "p.json").read_text())
    assert found == [{"query": f"{name}?", "gt": "Here.", "pred": "Thé\n\r."} for name in "ac"]
