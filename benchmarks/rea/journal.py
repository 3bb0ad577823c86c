"""A file of JSON lines that one job appends to, a line a finished item, and continues from.

The first line is a header that names the job. A line is forced to disk before the next item begins; what a crash leaves
of a last line was never acknowledged, so it is cut off and its item is done again.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from ...runtime.errors import BadInput
from ..folders import make_folder

__all__ = ["Item", "Journal", "exclusive", "force", "whole_lines"]

Item = dict[str, Any]
BEGINNING = b'{"header"'


class Journal:
    """An open file; use `Journal.open`.

    Attributes:
        items: what is finished, in the order of the file.
    """

    def __init__(self, path: Path, file: FileIO, items: list[Item]):
        self._path = path
        self._file = file
        self.items = items

    @classmethod
    @contextmanager
    def open(cls, path: Path, header: Mapping[str, Any], read: Callable[[bytes], list[Item]]) -> Iterator["Journal"]:
        """Create a file, or continue one; no other process can write to it meanwhile.

        Args:
            path: the file; its folder is made.
            header: what the first line says of the job.
            read: from the complete lines of a file that exists to its items; raises BadInput if it is of another job.

        Raises:
            BadInput: the file cannot be used, belongs to something else, or is being written by another process.
        """
        with exclusive(path) as file:
            content = file.readall()
            # a crash may have left a part of the header only
            if not content.startswith(BEGINNING[: len(content)]):
                raise BadInput(f"{path}: exists and is not a file of this command; choose another --out")
            whole = whole_lines(content)
            journal = cls(path, file, read(whole) if whole else [])
            file.truncate(len(whole))
            file.seek(len(whole))
            if not whole:
                journal._write({"header": dict(header)})
            yield journal

    def append(self, item: Item) -> None:
        """Add a finished item; it is on disk when this returns, or BadInput says why it cannot be."""
        self._write(item)
        self.items.append(item)

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            force(self._file, json.dumps(line).encode() + b"\n")
        except OSError as error:
            reason = f"{self._path}: cannot be written ({error.strerror}); lines before are kept; run again to continue"
            raise BadInput(reason) from None


@contextmanager
def exclusive(path: Path) -> Iterator[FileIO]:
    """A file to read and add to, created with its folder if need be; no other process can write to it meanwhile.

    Raises:
        BadInput: it cannot be written, or another process is writing to it.
    """
    make_folder(path.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); choose another --out") from None
    with FileIO(descriptor, "r+") as file:
        try:
            # locked before it is read, since another process may be adding to it
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{path}: another process is writing to it; wait for it or give another --out") from None
        yield file


def force(file: FileIO, data: bytes) -> None:
    """Write all of it, and wait until it is on disk; raises OSError."""
    # an unbuffered file may take a part of what it is given
    while data:
        data = data[file.write(data) :]
    os.fsync(file.fileno())


def whole_lines(data: bytes) -> bytes:
    """Without an incomplete last line."""
    return data[: data.rfind(b"\n") + 1]
