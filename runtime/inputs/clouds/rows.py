"""What readers of files have in common: rows of numbers in text, and sizes that headers promise."""

import os
import warnings
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from ...errors import BadInput

__all__ = ["parse_rows", "require_bytes"]


def parse_rows(
    lines: Iterable[str], *, columns: int | None = None, count: int | None = None, separator: str | None = None
) -> np.ndarray:
    """Numbers in text as [rows, columns] float64; empty lines are passed over.

    Args:
        lines: one a row.
        columns: expected in each row; by default as many as in the first.
        count: read no further than so many rows.
        separator: between numbers; by default white space.

    Raises:
        BadInput: a row holds something else, or another count of numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file is the caller's matter
            rows = np.loadtxt(lines, np.float64, comments=None, delimiter=separator, max_rows=count, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"not rows of numbers ({error})") from None
    if not rows.size:
        return np.empty((0, columns or 0))
    if columns is not None and rows.shape[1] != columns:
        raise BadInput(f"its rows hold {rows.shape[1]} numbers, expected {columns}")
    return rows


def require_bytes(file: BinaryIO, size: int, what: str) -> None:
    """Raise BadInput unless so many bytes follow in a file, before they are allocated."""
    left = os.fstat(file.fileno()).st_size - file.tell()
    if size > left:
        raise BadInput(f"truncated or damaged; the header promises {what}, but only {max(0, left)} bytes follow it")
