"""Clouds in messages: their columns, and many of them in one."""

import logging
from typing import Any

import numpy as np

from ...errors import BadInput
from ..clouds.columns import to_cloud
from ..clouds.depth import CELL, first_in_cells
from ..clouds.extent import FURTHEST, MOST_INVALID

__all__ = ["CLOUD_TYPE", "Fused", "has_colours", "read_cloud"]

LOG = logging.getLogger(__name__)
CLOUD_TYPE = "sensor_msgs/msg/PointCloud2"
KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
# metres: of many clouds one point is kept in a cell, the first; cells grow where more points than this are left
MOST_POINTS = 4_000_000
# a last cloud that fills so much of the cells of all is a map that grew; metres
COARSE, WHOLE = 0.1, 0.9
COLOURS = ({"rgb"}, {"rgba"}, {"r", "g", "b"}, {"red", "green", "blue"})


def has_colours(message: Any) -> bool:
    """Whether a cloud has fields of colours."""
    names = {field.name.lower() for field in message.fields}
    return any(wanted <= names for wanted in COLOURS)


def read_cloud(message: Any, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] and colours [P, 3] of a `PointCloud2` in their own types; raises BadInput where it has none."""
    order = ">" if message.is_bigendian else "<"
    fields = {field.name: field for field in message.fields if field.count in (0, 1)}
    point, row = int(message.point_step), int(message.row_step) or int(message.point_step) * int(message.width)
    try:
        if unknown := [field.name for field in fields.values() if field.datatype not in KINDS]:
            raise BadInput(f"its field {unknown[0]} is of no known type")
        kind = np.dtype(
            {
                "names": list(fields),
                "formats": [order + KINDS[field.datatype] for field in fields.values()],
                "offsets": [int(field.offset) for field in fields.values()],
                "itemsize": point,
            }
        )
        height, width = int(message.height), int(message.width)
        if row < point * width or height * row > len(message.data) or not point:
            raise BadInput(f"damaged; {height} x {width} points of {point} bytes, found {len(message.data)} bytes")
        shown = np.ndarray((height, width), kind, np.ascontiguousarray(message.data), 0, (row, point)).ravel()
        return to_cloud({name: native(shown[name]) for name in fields})
    except (BadInput, ValueError, TypeError) as error:
        raise BadInput(f"{source}: {error}") from None


def native(column: np.ndarray) -> np.ndarray:
    return column.astype(column.dtype.newbyteorder("="))


class Fused:
    """Clouds that come one after the other, of which a point a cell is kept.

    What is held is at most twice `MOST_POINTS` and one cloud: where more points are left, cells are doubled.
    """

    def __init__(self, source: str):
        """`source` is what messages call them."""
        self._source, self._cell = source, CELL
        self._held: list[tuple[np.ndarray, np.ndarray]] = []
        self._origin, self._last = np.zeros(3), np.zeros((0, 3))
        self._kept = self._total = self._bad = 0

    def add(self, points: np.ndarray, colours: np.ndarray, pose: np.ndarray) -> None:
        """A cloud: points [P, 3], colours [P, 3], and where its frame lies in the map, [4, 4]."""
        good = (np.abs(points) <= FURTHEST).all(axis=1) & np.isfinite(colours).all(axis=1)
        self._total, self._bad = self._total + len(points), self._bad + int((~good).sum())
        if not good.any():
            return
        if not self._held:
            self._origin = pose[:3, 3].copy()
        moved = points[good].astype(np.float64) @ pose[:3, :3].T + (pose[:3, 3] - self._origin)
        self._held.append(first_in_cells(moved, colours[good], self._cell))
        self._last = self._held[-1][0]
        self._kept += len(self._last)
        while self._kept > MOST_POINTS:
            self._held = [self._joined()]
            self._kept = len(self._held[0][0])
            if 2 * self._kept > MOST_POINTS:
                self._cell *= 2
                LOG.warning("%s: over %d points; one in %g m is kept", self._source, MOST_POINTS // 2, self._cell)

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """Points [P, 3] float64 and colours [P, 3].

        Raises:
            BadInput: there are no points, or over nine of ten are NaN or infinite.
        """
        told = f"{self._source}: {self._bad} of {self._total} points have coordinates or colours that are no numbers"
        if not self._held or self._bad > MOST_INVALID * self._total:
            raise BadInput(
                f"{told}, over {MOST_INVALID:.0%} of them" if self._total else f"{self._source}: holds no points"
            )
        if self._bad:
            LOG.warning("%s, and are left out", told)
        points, colours = self._joined()
        return points + self._origin, colours

    def last_is_whole(self) -> bool:
        """Whether the last cloud alone fills nearly all that all of them fill."""
        cells = [len(first_in_cells(points, points, COARSE)[0]) for points in (self._last, self._joined()[0])]
        return cells[0] >= WHOLE * cells[1]

    def _joined(self) -> tuple[np.ndarray, np.ndarray]:
        points, colours = zip(*self._held, strict=True)
        return first_in_cells(np.concatenate(points), np.concatenate(colours), self._cell)
