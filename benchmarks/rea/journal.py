"""A file of JSON lines that a job appends to, one a finished item, and resumes from."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runtime.errors import BadInput

__all__ = ["Journal"]

HEADER = b'{"header"'


class Journal:
    """What was done before, and a place for what is done next; the first line is a header that names the job.

    Attributes:
        done: finished items by id.

    Raises:
        BadInput: the file belongs to another job, or is none of these files.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.done: dict[str, dict[str, Any]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise BadInput(f"{path}: cannot be used ({error.strerror}); choose another --out") from None
        # a crash may have cut the last line; it was never acknowledged, so its item is done again
        whole = content[: content.rfind(b"\n") + 1]
        if whole or not content.startswith(HEADER[: len(content)]):
            self.read(whole.decode("utf-8", errors="replace").splitlines(), dict(header))
        if len(whole) < len(content):
            os.truncate(path, len(whole))
        if not whole:
            self.write({"header": dict(header)})

    def read(self, lines: list[str], header: dict[str, Any]) -> None:
        try:
            first, *items = (json.loads(line) for line in lines)
            found = dict(first["header"])
            self.done = {item["id"]: item for item in items}
        except (ValueError, KeyError, TypeError):
            raise BadInput(f"{self.path}: exists and is not a file of this command; choose another --out") from None
        if found != header:
            differing = ", ".join(sorted(key for key in found.keys() | header if found.get(key) != header.get(key)))
            raise BadInput(f"{self.path}: was written with another {differing}; choose another --out or delete it")

    def add(self, item: Mapping[str, Any]) -> None:
        """Record one finished item; it is on the disk when this returns."""
        self.write(item)
        self.done[item["id"]] = dict(item)

    def write(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
