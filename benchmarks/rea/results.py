"""Answers on disk: a header line that says what they are answers to, then one JSON line each."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundle.files import atomic_path
from ...runtime.errors import BadInput
from .dataset import Sample
from .journal import Item, Journal, whole_lines

__all__ = ["Header", "Record", "open_results", "read_results", "record_of", "write_predictions", "write_results"]

LOG = logging.getLogger(__name__)
SCHEMA = 1
REQUIRED = ("id", "question_type", "query", "gt", "pred")

Record = Item


@dataclass(frozen=True)
class Header:
    """What a file's answers are answers to.

    Attributes:
        bundle: digest of what the bundle contributes.
        rea: digest of the JSON file.
        options: what else decides an answer.
        subset: what was asked for.
        ids: all samples of the subset, of every shard, in their order.
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


def record_of(sample: Sample, pred: str, **figures: Any) -> Record:
    """An answer as it is stored: what was asked, the truth, and what the model said."""
    return {
        "id": sample.id,
        "question_type": sample.question_type,
        "scene_id": sample.scene_id,
        "query": sample.question,
        "gt": sample.answer,
        "pred": pred.strip(),
        **figures,
    }


def normalised(header: Header) -> Header:
    """A header as it comes back from a file."""
    # tuples come back as lists, which are never equal to them
    return Header(**json.loads(json.dumps(asdict(header))))


def open_results(path: Path, header: Header) -> AbstractContextManager[Journal]:
    """Create a file of answers, or continue one of the same header; what it holds is in `items`.

    Raises:
        BadInput: the file is damaged, belongs to something else, or is being written by another process, or its
            folder cannot be made.
    """

    def read(whole: bytes) -> list[Record]:
        found, records = parse(path, whole)
        if reason := found.difference(normalised(header)):
            raise BadInput(f"{path}: {reason}; give another --out, or delete it to start again")
        return records

    return Journal.open(path, asdict(header), read)


def read_results(path: Path) -> tuple[Header, list[Record]]:
    """A file's header and answers; an incomplete last line is left out, with a warning.

    Raises:
        BadInput: it is not a results file, or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    whole = whole_lines(data)
    if len(whole) < len(data):
        LOG.warning("%s: its last line is incomplete and does not count", path)
    return parse(path, whole)


def write_results(path: Path, header: Header, records: Iterable[Record]) -> None:
    """Write a complete results file."""
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


def parse(path: Path, data: bytes) -> tuple[Header, list[Record]]:
    """Header and answers from complete lines."""
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
                raise ValueError(f"lacks {missing[0]}" if missing else f"id {name!r} is unknown or not unique")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadInput(f"{path}: line {number} is damaged ({error}); delete that line to ask again") from None
        known.remove(name)
        records.append(record)
    return header, records
