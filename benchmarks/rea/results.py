"""Answers on disk: a header line that says what they are answers to, then one JSON line each.

A line is forced to disk before the next question is asked. What a crash leaves of a last line is cut off on resuming.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ...runtime.errors import BadInput
from ...runtime.files import atomic_path

__all__ = ["Header", "Record", "ResultsFile", "make_folder", "read_results", "write_predictions", "write_results"]

LOG = logging.getLogger(__name__)
SCHEMA = 1
REQUIRED = ("id", "question_type", "query", "gt", "pred")

Record = dict[str, Any]


@dataclass(frozen=True)
class Header:
    """What a file's answers are answers to.

    Attributes:
        bundle: digest of what the bundle contributes.
        rea: digest of the JSON file.
        options: what else decides an answer.
        subset: what was asked for.
        ids: all samples of the subset, in their order, whichever shard they are in.
        shard: the part of the subset that this file is for, as i/n.
        schema: of this format.
    """

    bundle: str
    rea: str
    options: Mapping[str, Any]
    subset: Mapping[str, Any]
    ids: Sequence[str]
    shard: str = "1/1"
    schema: int = SCHEMA

    def difference(self, other: "Header") -> str | None:
        """Why answers under another header do not belong with these; the shard may differ."""
        if self.schema != other.schema:
            return f"has schema {self.schema}, not {other.schema}"
        if self.bundle != other.bundle:
            return f"is from another bundle ({self.bundle[:12]}, not {other.bundle[:12]})"
        if self.rea != other.rea:
            return f"is from another REA file ({self.rea[:12]}, not {other.rea[:12]})"
        for key in sorted({*self.options, *other.options}):
            ours, theirs = self.options.get(key), other.options.get(key)
            if ours != theirs:
                return f"is from other options ({key} {ours}, not {theirs})"
        if self.subset != other.subset or self.ids != other.ids:
            return f"is of another subset ({json.dumps(self.subset)}, not {json.dumps(other.subset)})"
        return None


def normalised(header: Header) -> Header:
    """A header as it comes back from a file."""
    return Header(**json.loads(json.dumps(asdict(header))))


class ResultsFile:
    """A file that answers are appended to; use `ResultsFile.open`."""

    def __init__(self, file: IO[bytes], records: list[Record]):
        self._file = file
        self.records = records

    @classmethod
    @contextmanager
    def open(cls, path: Path, header: Header) -> Iterator["ResultsFile"]:
        """Create a file, or go on with one of the same header; its answers are in `records`.

        Raises:
            BadInput: the file is damaged, belongs to something else, or is being written by another process, or its
                folder cannot be made.
        """
        header = normalised(header)
        make_folder(path.parent)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInput(f"{path}: another process is writing to it; wait for it or give another --out") from None
            whole = whole_lines(file.read())
            records: list[Record] = []
            if whole:
                found, records = parse(path, whole)
                if reason := found.difference(header):
                    raise BadInput(f"{path}: {reason}; give another --out, or delete it to start again")
            file.truncate(len(whole))
            file.seek(len(whole))
            results = cls(file, records)
            if not whole:
                results._write({"header": asdict(header)})
            yield results

    def append(self, record: Record) -> None:
        """Add an answer; it is on disk when this returns."""
        self._write(record)
        self.records.append(record)

    def _write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_results(path: Path) -> tuple[Header, list[Record]]:
    """A file's header and answers; a torn last line is left out and said so.

    Raises:
        BadInput: it is not a results file, or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    whole = whole_lines(data)
    if len(whole) < len(data):
        LOG.warning("%s: its last line is torn and does not count", path)
    return parse(path, whole)


def make_folder(out: Path) -> None:
    """Make the folder of results; raises BadInput where that cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {out}: no folder can be made there ({error.strerror})") from None


def write_results(path: Path, header: Header, records: Iterable[Record]) -> None:
    """A whole results file at once."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for content in ({"header": asdict(header)}, *records):
            file.write(json.dumps(content) + "\n")


def write_predictions(path: Path, header: Header, records: Iterable[Record]) -> None:
    """What the authors' graders read: a list of query, gt and pred, in the order of the data set."""
    predictions = [{key: record[key] for key in ("query", "gt", "pred")} for record in in_order(header, records)]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(predictions, indent=1) + "\n", encoding="utf-8")


def in_order(header: Header, records: Iterable[Record]) -> list[Record]:
    """Answers in the order of the data set."""
    places = {name: place for place, name in enumerate(header.ids)}
    return sorted(records, key=lambda record: places[record["id"]])


def whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def parse(path: Path, data: bytes) -> tuple[Header, list[Record]]:
    """Header and answers from whole lines."""
    lines = data.splitlines()
    try:
        header = Header(**json.loads(lines[0])["header"])
        known = set(header.ids)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise BadInput(f"{path}: its first line is no header; expected a file that rea run wrote") from None
    records = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            record = json.loads(line)
            name = record["id"]
            missing = [key for key in REQUIRED if not isinstance(record.get(key), str)]
            if missing or name not in known:
                raise ValueError(f"lacks {missing[0]}" if missing else f"id {name!r} is unknown or doubled")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadInput(f"{path}: line {number} is damaged ({error}); delete that line to ask again") from None
        known.remove(name)
        records.append(record)
    return header, records
