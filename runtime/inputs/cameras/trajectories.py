"""Text files of many poses: TUM's trajectories, EuRoC's states, and matrices one after the other."""

import re
from typing import NamedTuple

import numpy as np

from ...errors import BadInput
from .cameras import Cameras
from .numbers import parse_rows
from .poses import RawPoses, from_quaternions

__all__ = ["States", "matrices_in_order", "parse_table", "read_states", "tum_cameras"]

TUM_COLUMNS = 8
# stamps of a clock in nano-, micro- and milliseconds are larger than these in the next unit
UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
NANOSECONDS = 1e15


class States(NamedTuple):
    """Stamped poses.

    Attributes:
        times: [P] seconds.
        matrices: [P, 4, 4] float64, of what moves in the world.
        body: whether they are written as EuRoC's states are, those of a body on which the camera sits.
    """

    times: np.ndarray
    matrices: np.ndarray
    body: bool


def parse_table(text: str, source: str) -> tuple[str, np.ndarray]:
    """The first line, which may name columns, and the rows of numbers [P, C]; raises BadInput where there are none."""
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    try:
        rows = parse_rows(text)
    except ValueError:
        try:
            rows = parse_rows("\n".join(lines[lines.index(first) + 1 :]) if first else "")
        except ValueError as error:
            raise BadInput(f"{source}: holds no poses in rows of numbers ({error})") from None
    if not rows:
        raise BadInput(f"{source}: holds no poses")
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        at = next(place for place, row in enumerate(rows) if len(row) != len(rows[0]))
        raise BadInput(f"{source}: row {at} has {len(rows[at])} numbers, the first {len(rows[0])}")
    return first, np.array(rows, np.float64)


def read_states(first: str, rows: np.ndarray) -> States:
    """Rows of stamp, translation and quaternion; its order is the one that the first line names, else the format's."""
    named = [word[-1] for word in re.findall(r"\bq\w*", first.lower()) if word[-1] in "wxyz"]
    body = bool(re.search(r"\b[pq]_\w+", first)) or (rows.shape[1] > TUM_COLUMNS and rows[0, 0] >= NANOSECONDS)
    if sorted(named) != ["w", "x", "y", "z"]:
        named = list("wxyz" if body else "xyzw")
    real_first = [4 + named.index(letter) for letter in "wxyz"]
    times = rows[:, 0].copy()
    with np.errstate(invalid="ignore"):
        middle = np.nanmedian(np.abs(times)) if np.isfinite(times).any() else 0.0
    times /= next((unit for least, unit in UNITS if middle > least), 1.0)
    known = np.isfinite(times)
    return States(times[known], from_quaternions(rows[known][:, real_first], rows[known, 1:4]), body)


def tum_cameras(states: States, source: str, convention: str) -> Cameras:
    """Poses of a camera by time; raises BadInput where none has a time."""
    if not len(states.times):
        raise BadInput(f"{source}: no pose has a time stamp")
    matrices = dict(zip(map(str, range(len(states.times))), states.matrices, strict=True))
    return Cameras(source, RawPoses(matrices, source, convention), times=states.times)


def matrices_in_order(rows: np.ndarray, source: str, convention: str) -> Cameras:
    """Matrices of one row each, or of three or four rows each; raises BadInput where the rows are none."""
    count, width = rows.shape
    if width == 4 and count % 4 == 0 and (rows[3::4] == [0, 0, 0, 1]).all(axis=1).mean() > 0.5:
        flat = rows.reshape(-1, 16)
    elif width == 4 and count % 3 == 0:
        flat = rows.reshape(-1, 12)
    elif width in (12, 16):
        flat = rows
    else:
        raise BadInput(
            f"{source}: {count} rows of {width} numbers are no poses; expected 12 or 16 a row, blocks of 3x4 or 4x4, "
            "or a stamp, three of place and four of a quaternion (TUM, EuRoC)"
        )
    if flat.shape[1] == 12:
        flat = np.hstack([flat, np.tile([0.0, 0, 0, 1], (len(flat), 1))])
    matrices = dict(zip(map(str, range(len(flat))), flat.reshape(-1, 4, 4), strict=True))
    return Cameras(source, RawPoses(matrices, source, convention), ordered=True)
