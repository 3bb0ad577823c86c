"""Files that are either whole or absent, and where caches live."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path", "cache_folder"]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what is written there takes its place at the end, or is deleted on any error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where this user's caches live; `STLLM_CACHE` or `XDG_CACHE_HOME` move it.

    Raises:
        FileNotFoundError: the user has no home; what would be remembered there is not.
    """
    if folder := os.environ.get("STLLM_CACHE"):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stllm-edge"
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from None
