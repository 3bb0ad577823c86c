"""Features by their keys: in memory up to a bound, and in a folder that several processes may share."""

import contextlib
import errno
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ..bundle.files import atomic_path
from ..errors import BadInput
from .packing import arrays, nbytes, pack, unpack

__all__ = ["Folder", "Store"]

LOG = logging.getLogger(__name__)
SUFFIX = ".features"
MARK, FORMAT = "stllm-cache", "1\n"
OURS = rf"\.?{MARK}.*|[0-9a-f]{{2}}"
# what others write is counted again after so many own files
RECOUNT = 64
# parts of files of processes that were killed, seconds
ABANDONED = 3600.0


class Store:
    """What is known: the least recently used goes first, from memory and from the folder."""

    def __init__(self, most_bytes: int, folder: "Folder | None" = None):
        """Begin with what the folder holds.

        Args:
            most_bytes: that are kept in memory.
            folder: where all is kept that is found out; None for memory alone.
        """
        self._most, self._folder = most_bytes, folder
        self._held: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __contains__(self, key: str) -> bool:
        """Whether something is likely known; a damaged file is found out when it is read."""
        return key in self._held or (self._folder is not None and key in self._folder)

    def get(self, key: str) -> Any:
        """What is known under a key, its arrays read-only; None where nothing is."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        found = self._folder.read(key) if self._folder else None
        if found is not None:
            self._keep(key, found)
        return found

    def put(self, key: str, value: Any) -> None:
        """Keep a result; its arrays become read-only, since they are handed out again."""
        for array in arrays(value):
            array.flags.writeable = False
        self._keep(key, value)
        if self._folder:
            self._folder.write(key, value)

    def _keep(self, key: str, value: Any) -> None:
        with self._lock:
            if key in self._held or nbytes(value) > self._most:
                return
            self._held[key] = value
            self._bytes += nbytes(value)
            while self._bytes > self._most:
                _, oldest = self._held.popitem(last=False)
                self._bytes -= nbytes(oldest)

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            self._held.clear()
            self._bytes = 0


class Folder:
    """A folder of features, a file each."""

    def __init__(self, path: Path, most_bytes: int):
        """Open or make it.

        Args:
            path: the folder.
            most_bytes: of all files together.

        Raises:
            BadInput: it is a file, cannot be made, or was written by another version.
        """
        self._path, self._most = path, most_bytes
        self._written, self._bytes, self._full, self._told = 0, 0, False, False
        mark = path / MARK
        try:
            path.mkdir(parents=True, exist_ok=True)
            if mark.exists() and mark.read_text() != FORMAT:
                raise BadInput(f"--cache {path}: was written by another version; delete it or name another folder")
            if not mark.exists():
                # another process may be making the same folder
                if any(not re.fullmatch(OURS, entry.name) for entry in path.iterdir()):
                    raise BadInput(f"--cache {path}: holds other files; name a new folder")
                with atomic_path(mark) as temporary:
                    temporary.write_text(FORMAT)
        except (OSError, UnicodeDecodeError) as error:
            if not path.is_dir() or mark.is_dir():
                raise BadInput(f"--cache {path}: cannot be used as a folder ({error})") from None
            self._go_without(error)
        self._trim()

    def __contains__(self, key: str) -> bool:
        return self._file(key).exists()

    def read(self, key: str) -> Any:
        """What is known under a key; None where nothing is, or where it is damaged, which is said once."""
        file = self._file(key)
        try:
            found = unpack(file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._go_without(error)
            return None
        except (ValueError, LookupError, TypeError) as error:
            LOG.log(
                logging.DEBUG if self._told else logging.WARNING,
                "--cache: %s is damaged (%s), so it is computed again, and so is all else that is damaged",
                file,
                error,
            )
            self._told = True
            return None
        # the time of last use, by which the oldest go
        with contextlib.suppress(OSError):
            os.utime(file)
        return found

    def write(self, key: str, value: Any) -> None:
        """Keep a result; where the disk is full, it is said once, and nothing more is kept."""
        if self._full:
            return
        data = pack(value if not hasattr(value, "shape") else np.asarray(value))
        if len(data) > self._most:
            return
        try:
            with atomic_path(self._file(key)) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            self._go_without(error)
            return
        self._written += 1
        self._bytes += len(data)
        if self._bytes > self._most or self._written % RECOUNT == 0:
            self._trim()

    def _file(self, key: str) -> Path:
        return self._path / key[:2] / f"{key}{SUFFIX}"

    def _trim(self) -> None:
        """Count what is there, and delete the least recently used until it is within the bound."""
        entries = sorted(self._entries())
        self._bytes = sum(size for _, size, _ in entries)
        for _, size, file in entries:
            if self._bytes <= self._most:
                return
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                self._go_without(error)
                return
            self._bytes -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, bytes and path of each file; parts that a killed process left are removed."""
        for file in self._path.glob("??/*"):
            try:
                status = file.stat()
                if file.suffix == SUFFIX:
                    yield status.st_mtime, status.st_size, file
                elif file.suffix == ".part" and status.st_mtime < time.time() - ABANDONED:
                    file.unlink(missing_ok=True)
            except OSError:
                # another process was quicker
                continue

    def _go_without(self, error: Exception) -> None:
        reason = "the disk is full" if getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT) else str(error)
        if not self._full:
            LOG.warning("--cache %s: %s; goes on, and keeps nothing new there", self._path, reason)
        self._full = True
