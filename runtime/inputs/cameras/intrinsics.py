"""Focal lengths and centres in pixels, of the frames themselves or of images of another size (SPEC section 5)."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from .numbers import read_rows
from .poses import RIGID_TOLERANCE, to_matrix

__all__ = ["load_intrinsics", "parse_size", "scaled", "to_intrinsics"]

LOG = logging.getLogger(__name__)
LARGEST_PIXEL = 1e6
MOST_BYTES = 65_536
# 1920x1080 and 456x256 differ by 0.2 %
ASPECT_TOLERANCE = 0.01


def load_intrinsics(path: Path) -> np.ndarray:
    """Intrinsics [3, 3] float64 from a text file of 3x3, or of 3x4 or 4x4 numbers that only pad them.

    Raises:
        BadInput: they are not what `to_intrinsics` takes.
    """
    source = f"intrinsics {path}"
    rows = read_rows(path, source, MOST_BYTES)
    numbers = [number for row in rows for number in row]
    if len(rows) == 1 and len(numbers) == 9:
        rows = [numbers[place : place + 3] for place in (0, 3, 6)]
    if len(rows) in (3, 4) and all(len(row) == 4 for row in rows):
        padding = [row[3] for row in rows[:3]] + [
            number - one for row in rows[3:] for number, one in zip(row, (0, 0, 0, 1), strict=True)
        ]
        if not any(padding):
            rows = [row[:3] for row in rows[:3]]
    return to_intrinsics(rows, source)


def to_intrinsics(values: Any, source: str) -> np.ndarray:
    """Intrinsics [3, 3] float64; `source` is what an error names them.

    Raises:
        BadInput: they are not focal lengths and a centre in pixels.
    """
    matrix = to_matrix(values, (3, 3), source)
    if np.abs(matrix[2] - [0, 0, 1]).max() > RIGID_TOLERANCE:
        raise BadInput(f"{source}: the last row is {matrix[2].tolist()}, expected 0 0 1")
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise BadInput(f"{source}: focal lengths are {matrix[0, 0]:g} and {matrix[1, 1]:g}, expected pixels > 0")
    if min(matrix[0, 0], matrix[1, 1]) < 1 / LARGEST_PIXEL or np.abs(matrix).max() > LARGEST_PIXEL:
        raise BadInput(f"{source}: {matrix.tolist()} are no focal lengths and centre in pixels")
    return matrix


def scaled(intrinsics: np.ndarray, of: tuple[int, int], size: tuple[int, int], source: str) -> np.ndarray:
    """Intrinsics of images of one size for the same images at another, both width and height in pixels.

    Raises:
        BadInput: the sizes differ in more than scale, as after a crop or a turn; `source` names the intrinsics.
    """
    if of == size:
        return intrinsics
    (width, height), (wide, high) = size, of
    if abs(width * high / (height * wide) - 1) > ASPECT_TOLERANCE:
        turned = ", as if turned by a quarter" if abs(width * wide / (height * high) - 1) <= ASPECT_TOLERANCE else ""
        raise BadInput(
            f"{source}: belong to images of {wide}x{high}, the frames have {width}x{height}, which is another shape"
            f"{turned}; give frames that are scaled, not cropped or turned, or --intrinsics of these frames"
        )
    LOG.info("%s: scaled from %dx%d to the frames' %dx%d", source, wide, high, width, height)
    return np.diag([width / wide, height / high, 1.0]) @ intrinsics


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of an option like 1920x1080; raises BadInput."""
    width, _, height = text.lower().partition("x")
    if not (
        width.isdecimal()
        and height.isdecimal()
        and 0 < int(width) <= LARGEST_PIXEL
        and 0 < int(height) <= LARGEST_PIXEL
    ):
        raise BadInput(
            f"--intrinsics-of {text}: expected the frames' size as 1920x1080, 1x1 for a K in shares, or auto"
        )
    return int(width), int(height)
