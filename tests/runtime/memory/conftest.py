"""Memory that tests of its counters can rely on."""

import mmap
from collections.abc import Callable

import pytest


def write_pages(size: int) -> mmap.mmap:
    """Written anonymous memory that the kernel has just given: an allocator would hand out pages that it kept."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(size // 2**20):
        pages.write(bytes(2**20))
    return pages


@pytest.fixture
def fresh_pages() -> Callable[[int], mmap.mmap]:
    return write_pages
