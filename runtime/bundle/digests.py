"""SHA-256 of files, remembered by inode, size and time of change so that an unchanged file is read once."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from .files import atomic_path, cache_folder

__all__ = ["DigestMemory", "file_digest", "joint_digest", "sha256"]

LOG = logging.getLogger(__name__)
MEMORY = "digests.json"
LARGEST_MEMORY = 4096
BLOCK = 2**22


class DigestMemory:
    """Digests of this user's files, as a context manager: read at the start; what is new is kept at the end.

    What was hashed before an error or an interrupt is kept too.
    """

    def __enter__(self) -> "DigestMemory":
        self._known = recall()
        self._new: dict[str, str] = {}
        return self

    def __exit__(self, *exception: object) -> None:
        if self._new:
            keep(self._new)

    def digest(self, path: Path, *, fresh: bool = False) -> str:
        """SHA-256 of a file, hexadecimal; `fresh` reads it even if it looks unchanged."""
        key = identity(path)
        if fresh or key not in self._known:
            self._known[key] = self._new[key] = sha256(path)
        return self._known[key]

    def remember(self, path: Path, digest: str) -> None:
        """Take the caller's word for a file's SHA-256, who hashed it under another name."""
        key = identity(path)
        self._known[key] = self._new[key] = digest


def file_digest(path: Path, *, fresh: bool = False) -> str:
    """SHA-256 of one file, remembered; of several, `DigestMemory` reads its memory once."""
    with DigestMemory() as memory:
        return memory.digest(path, fresh=fresh)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha.update(block)
    return sha.hexdigest()


def joint_digest(digests: Mapping[str, str]) -> str:
    """One SHA-256 over names and digests, independent of their order."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def identity(path: Path) -> str:
    """What tells a file from others and from its own earlier states; it changes with a rename, by the last number."""
    status = path.stat()
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, numbers))


def recall() -> dict[str, str]:
    try:
        known = json.loads((cache_folder() / MEMORY).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def keep(new: Mapping[str, str]) -> None:
    """Add digests to the memory's end; without a writable cache folder, files are simply read again."""
    # read once more: another process may have added its own while this one was hashing
    older = {key: digest for key, digest in recall().items() if key not in new}
    newest = dict([*older.items(), *new.items()][-LARGEST_MEMORY:])
    try:
        with atomic_path(cache_folder() / MEMORY) as temporary:
            temporary.write_text(json.dumps(newest))
    except OSError as error:
        LOG.info("digests are not remembered: %s", error)
