"""The staging folder of a writer: what is not finished lies there, with a list of what it puts into the bundle.

Whatever ends a writer, the list and the manifest tell what is left over: files of the list that the manifest does not
name, which are new ones before the manifest is replaced and old ones after.
"""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from .manifest import leads_out

__all__ = ["list_changes", "make_staging", "sweep", "sync"]

STAGING = ".staging-"
CHANGES = "changes.json"


def make_staging(bundle: Path) -> Path:
    """A new staging folder."""
    staging = bundle / f"{STAGING}{secrets.token_hex(4)}"
    staging.mkdir()
    return staging


def list_changes(staging: Path, names: Iterable[str]) -> None:
    """Say which of the bundle's files will be new or gone, before the first one is."""
    (staging / CHANGES).write_text(json.dumps(sorted(names)), encoding="utf-8")
    sync(staging / CHANGES)
    sync(staging)


def sweep(bundle: Path, named: Collection[str]) -> None:
    """Remove all that writers left over, and nothing else.

    Args:
        bundle: its folder, locked.
        named: files that its manifest names.
    """
    for staging in bundle.glob(f"{STAGING}*"):
        for name in listed(staging):
            if name not in named:
                remove(bundle, name)
        shutil.rmtree(staging)


def listed(staging: Path) -> list[str]:
    """The names that a staging folder lists; none where nothing was changed yet."""
    try:
        names = json.loads((staging / CHANGES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def remove(bundle: Path, name: str) -> None:
    """Delete a file, and the folders that are empty without it; not one that lies outside, which a link may lead to."""
    file = bundle / name
    if leads_out(name) or not file.parent.resolve().is_relative_to(bundle.resolve()):
        return
    file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in file.parents:
            if folder == bundle:
                return
            folder.rmdir()


def sync(path: Path) -> None:
    """Force a file or a folder to disk, so that a power cut leaves no name without its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
