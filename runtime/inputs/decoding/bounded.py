"""Files that libraries read by lengths that stand in them: what a damaged one claims is not allocated."""

import io
import os
from pathlib import Path

__all__ = ["BoundedFile"]

# what a read may take unasked: where the file ends is looked up for longer ones alone
SHORT = 1 << 16


class BoundedFile(io.BufferedReader):
    """A file, open for reading bytes, that is asked for no more than is left of it."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        """As a file does."""
        if size is not None and 0 <= size <= SHORT:
            return super().read(size)
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))
