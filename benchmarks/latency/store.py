"""The file of a run: rows of one question after the other, forced to disk; started again, it goes on."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ...runtime.errors import BadInput
from ..rea.journal import exclusive, force, whole_lines
from .rows import Row, read_rows

__all__ = ["Store", "finished"]


class Store:
    """An open file; use `Store.open`.

    Attributes:
        path: the file.
        rows: what it holds.
    """

    def __init__(self, path: Path, file: FileIO, rows: list[Row]):
        self.path, self.rows, self._file = path, rows, file

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["Store"]:
        """Create a file, or go on with one, of which rows of a question that did not come to its end are cut off.

        Raises:
            BadInput: the file cannot be written, is something else, or another process writes to it.
        """
        with exclusive(path) as file:
            whole = whole_lines(file.readall())
            rows = finished(read_rows(path)) if whole else []
            size = sum(map(len, whole.splitlines(keepends=True)[: len(rows)]))
            file.truncate(size)
            file.seek(size)
            store = cls(path, file, rows)
            try:
                yield store
            finally:
                if not store.rows:
                    # what was refused before anything was measured leaves nothing behind
                    path.unlink(missing_ok=True)

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows, all or none; they are on disk when this returns, or BadInput says why they cannot be."""
        before = self._file.tell()
        try:
            force(self._file, b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
        except OSError as error:
            self._file.truncate(before)
            self._file.seek(before)
            raise BadInput(
                f"{self.path}: cannot be written ({error.strerror}); rows before are kept, the same command goes on"
            ) from None
        self.rows += rows


def finished(rows: list[Row]) -> list[Row]:
    """Rows up to the last question that came to its end: its total is the last of its rows; none without such a one."""
    if not any(row.get("stage") == "total" for row in rows):
        return []
    for place in range(len(rows), 0, -1):
        row = rows[place - 1]
        if row["kind"] not in ("stage", "interval") or row.get("stage") == "total":
            return rows[:place]
    return []
