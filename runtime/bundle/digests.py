"""SHA-256 of files, remembered by inode, size and time of change so that an unchanged file is read once."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from .files import atomic_path, cache_folder

__all__ = ["file_digest", "joint_digest"]

LOG = logging.getLogger(__name__)
MEMORY = "digests.json"
LARGEST_MEMORY = 4096
BLOCK = 2**22


def file_digest(path: Path, *, fresh: bool = False) -> str:
    """SHA-256 of a file, hexadecimal; `fresh` reads it even if it looks unchanged."""
    status = path.stat()
    key = ":".join(
        str(number) for number in (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )
    known = _recall()
    if not fresh and key in known:
        return known[key]
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha.update(block)
    known.pop(key, None)
    _remember({**known, key: sha.hexdigest()})
    return sha.hexdigest()


def joint_digest(digests: Mapping[str, str]) -> str:
    """One SHA-256 over names and digests, independent of their order."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _recall() -> dict[str, str]:
    try:
        known = json.loads((cache_folder() / MEMORY).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(known: dict[str, str]) -> None:
    """Keep the newest digests; without a writable cache folder, files are simply read again."""
    newest = dict(list(known.items())[-LARGEST_MEMORY:])
    try:
        with atomic_path(cache_folder() / MEMORY) as temporary:
            temporary.write_text(json.dumps(newest))
    except OSError as error:
        LOG.info("digests are not remembered: %s", error)
