"""The page cache before a cold start: dropped as far as this process may, and looked at whether it went."""

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["drop_cache", "resident_share"]

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
# page cache, and with it directory entries and inodes
EVERYTHING = "3"


def drop_cache(files: Sequence[Path], drop_caches: Path = DROP_CACHES) -> str:
    """Let the kernel forget what it keeps of files, and of everything where this process may; what was done, in words.

    Forgetting files needs no rights, but a page that another process has mapped stays, so it is said how much stayed.
    """
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            # what was just written is kept until it is on disk
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    try:
        drop_caches.write_text(EVERYTHING)
        did = "all dropped"
    except OSError:
        did = "the bundle's files dropped"
    share = resident_share(files)
    return did if share is None else f"{did}, {share:.0%} of the bundle still in memory"


def resident_share(files: Sequence[Path]) -> float | None:
    """Share of files' pages that are in memory; None where the kernel does not tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    resident = total = 0
    for file in files:
        size = file.stat().st_size
        if not size:
            continue
        pages = -(-size // mmap.PAGESIZE)
        marks = (ctypes.c_ubyte * pages)()
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), size, mmap.MAP_PRIVATE) as mapped:
            # a mapping of our own writes nothing: copies are made when it is written to, which it is not
            held = ctypes.c_char.from_buffer(mapped)
            code = libc.mincore(ctypes.c_void_p(ctypes.addressof(held)), ctypes.c_size_t(size), marks)
            del held
        if code:
            return None
        resident += sum(mark & 1 for mark in bytes(marks))
        total += pages
    return resident / total if total else None
