"""Answered questions and training examples from files."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...runtime.errors import BadInput
from ...runtime.inputs.entries import field, parse_conversation, read_entries, without_placeholders

__all__ = ["ALL", "Record", "read_predictions", "read_training"]

Record = Mapping[str, str]
# question type of records that state none
ALL = "all"
# what the authors' inference leaves before an answer
HEADER_ECHO = "assistant\n"


def read_predictions(path: Path) -> list[Record]:
    """Answered questions: id, question_type, query, gt, pred.

    Args:
        path: JSON lines of a run, whose first line may be a header (an object with the key "header"), or the JSON list
            of {query, gt, pred} that the authors' graders read; without question_type a question is of type "all".

    Raises:
        BadInput: the file is missing, or an entry is not such an object; the message names the entry.
    """
    text = read_text(path)
    as_list = text.lstrip().startswith("[")
    records: dict[str, Record] = {}
    for number, entry in listed(path, text) if as_list else lined(path, text):
        place = f"{path}, {'entry' if as_list else 'line'} {number}"
        record = checked(entry, place, str(number))
        if record["id"] in records:
            raise BadInput(f"{place}: id {record['id']} occurs twice; every question is scored once")
        records[record["id"]] = record
    if not records:
        raise BadInput(f"{path}: holds no answers")
    return list(records.values())


def read_training(path: Path) -> list[Record]:
    """Questions and answers of an REA file: question_type, query, gt.

    Raises:
        BadInput: the file is missing, or an entry is not one of REA's; the message names it.
    """
    return read_entries("--train", path, parse_training)


def parse_training(entry: Any) -> Record:
    question, answer = parse_conversation(entry)
    return {"question_type": field(entry, "metadata.question_type", str), "query": question, "gt": answer}


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadInput(f"{path}: cannot be read ({reason})") from None


def listed(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The entries of a JSON list, numbered from 0."""
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: not JSON (line {error.lineno}: {error.msg})") from None
    except RecursionError:
        raise BadInput(f"{path}: not JSON of this kind (nested too deep)") from None
    if not isinstance(entries, list):
        raise BadInput(f"{path}: expected a JSON list, found {type(entries).__name__}")
    return iter(enumerate(entries))


def lined(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The objects of JSON lines, numbered from 1, without the header."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            hint = "; the run was cut off: resume it" if number == len(lines) > 1 else ""
            raise BadInput(f"{path}, line {number}: not JSON ({error.msg}){hint}") from None
        except RecursionError:
            raise BadInput(f"{path}, line {number}: not JSON of this kind (nested too deep)") from None
        if number > 1 or not isinstance(entry, dict) or "header" not in entry:
            yield number, entry


def checked(entry: Any, place: str, number: str) -> Record:
    if not isinstance(entry, dict):
        raise BadInput(f"{place}: expected an object with query, gt and pred, found {type(entry).__name__}")
    for key in ("query", "gt", "pred"):
        if not isinstance(entry.get(key), str):
            raise BadInput(f"{place}: {key} is {'not a string' if key in entry else 'missing'}")
    return {
        "id": str(entry.get("id", number)),
        "question_type": str(entry.get("question_type") or ALL),
        "query": without_placeholders(entry["query"]),
        "gt": entry["gt"],
        "pred": entry["pred"].removeprefix(HEADER_ECHO),
    }
