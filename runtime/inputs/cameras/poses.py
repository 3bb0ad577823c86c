"""Poses as camera-to-world matrices with OpenCV axes, however they were meant (SPEC section 5)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import BadInput

__all__ = [
    "AUTO",
    "BODY",
    "FLIP_YZ",
    "OPTICAL_IN_BODY",
    "POSE_CONVENTIONS",
    "RIGID_TOLERANCE",
    "RawPoses",
    "from_quaternions",
    "require_convention",
    "to_matrix",
    "to_pose",
    "to_square",
]

POSE_CONVENTIONS = ("c2w", "w2c", "c2w-opengl", "w2c-opengl")
# of a robot's body: x forward, y left, z up (ROS, REP 103)
BODY = "c2w-body"
# to be decided by the frames; until then poses are taken as the first
AUTO = "auto"
RIGID_TOLERANCE = 1e-3
# a rotation of three decimals is that far from the nearest exact one, in units of the last: at most 0.84 among a
# million drawn ones
ROUNDED = 0.9
ENOUGH_DECIMALS = 3
FURTHEST = 1e8
FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])
# OpenCV's axes in those of a body
OPTICAL_IN_BODY = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
LAST_ROW = (0.0, 0.0, 0.0, 1.0)
# quaternions as trackers print them; others are no rotations
UNIT_TOLERANCE = 0.05


class RawPoses(Mapping[str, np.ndarray]):
    """Poses that a file holds, by name, [4, 4] float64 camera-to-world; one is checked when it is asked for."""

    def __init__(self, matrices: Mapping[str, Any], source: str, convention: str):
        """Take [4, 4] numbers by name, meant by one of `POSE_CONVENTIONS`; `source` is what errors name the file."""
        self._matrices, self._source, self._convention = matrices, source, convention

    def __getitem__(self, name: str) -> np.ndarray:
        """Raises BadInput unless it is a rotation and a translation."""
        return to_pose(self._matrices[name], f"pose {name} of {self._source}", self._convention)

    def __contains__(self, name: object) -> bool:
        return name in self._matrices

    def __iter__(self) -> Iterator[str]:
        return iter(self._matrices)

    def __len__(self) -> int:
        return len(self._matrices)


def from_quaternions(quaternions: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """Matrices [N, 4, 4] float64 of quaternions [N, 4], real part first, and translations [N, 3].

    Those of about length 1 become rotations; others stay as long as they are, so that `to_pose` refuses them.
    """
    with np.errstate(all="ignore"):
        length = np.linalg.norm(quaternions, axis=1)
        near = np.abs(length - 1) <= UNIT_TOLERANCE
        w, x, y, z = (quaternions / np.where(near, length, 1)[:, None]).T
        rows = (
            (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
        )
    matrices = np.tile(np.eye(4), (len(quaternions), 1, 1))
    matrices[:, :3, :3] = np.moveaxis(np.array(rows), 2, 0)
    matrices[:, :3, 3] = translations
    return matrices


def to_square(rows: Sequence[Sequence[float]], source: str) -> list[Any]:
    """The 4x4 numbers of a pose that is written as 4x4 or 3x4, in rows or in one line or column."""
    shape = [len(rows), len(rows[0]) if rows else 0]
    numbers = [number for row in rows for number in row]
    even = all(len(row) == shape[1] for row in rows)
    if even and shape in ([3, 4], [1, 12], [12, 1]):
        numbers += LAST_ROW
    elif not even or shape not in ([4, 4], [1, 16], [16, 1]):
        found = shape if even else f"rows of {sorted({len(row) for row in rows})}"
        raise BadInput(f"{source}: expected 4x4 numbers, found {found}")
    return [numbers[place : place + 4] for place in range(0, 16, 4)]


def to_pose(values: Any, source: str, convention: str = "c2w") -> np.ndarray:
    """A pose that is meant by a convention as camera-to-world with OpenCV axes, [4, 4] float64.

    Args:
        values: [4, 4] numbers.
        source: what an error names them.
        convention: one of `POSE_CONVENTIONS`, or `BODY`.

    Raises:
        BadInput: they are not a rotation and a translation.
    """
    pose = rigid(to_matrix(values, (4, 4), source), source)
    if convention.startswith("w2c"):
        pose = np.linalg.inv(pose)
    if convention.endswith("opengl"):
        pose = pose @ FLIP_YZ
    if convention == BODY:
        pose = pose @ OPTICAL_IN_BODY
    return pose


def require_convention(convention: str) -> None:
    """Raise BadInput unless a pose convention is known."""
    if convention not in (known := (*POSE_CONVENTIONS, BODY, AUTO)):
        raise BadInput(f"--pose-convention {convention}: unknown; known are {', '.join(known)}")


def rigid(pose: np.ndarray, source: str) -> np.ndarray:
    """A pose that is a rotation and a translation: itself, or with the nearest rotation where it was rounded.

    Raises:
        BadInput: it is neither.
    """
    rotation = orthonormal(pose[:3, :3], source)
    if np.linalg.det(rotation) < 0:
        raise BadInput(f"{source}: not rigid; its rotation mirrors (determinant -1)")
    if np.abs(pose[3] - LAST_ROW).max() > RIGID_TOLERANCE:
        raise BadInput(f"{source}: not rigid; its last row is {pose[3].tolist()}, expected 0 0 0 1")
    if np.abs(pose[:3, 3]).max() > FURTHEST:
        raise BadInput(f"{source}: its translation is {pose[:3, 3].tolist()}, expected metres")
    pose[:3, :3] = rotation
    return pose


def orthonormal(rotation: np.ndarray, source: str) -> np.ndarray:
    """The rotation itself if it is one, the nearest if it is one of three decimals; raises BadInput for others."""
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if deviation <= RIGID_TOLERANCE:
        return rotation
    few = ""
    if deviation < 1:
        left, _, right = np.linalg.svd(rotation)
        away = np.abs(rotation - left @ right).max()
        decimals = next((d for d in range(ENOUGH_DECIMALS + 1) if np.array_equal(rotation.round(d), rotation)), 0)
        if decimals and away <= ROUNDED * 10.0**-decimals:
            if decimals == ENOUGH_DECIMALS:
                return left @ right
            few = f"; it has {decimals} decimals, write at least {ENOUGH_DECIMALS}"
    raise BadInput(f"{source}: not rigid; its rotation deviates from orthonormal by {deviation:.2g} (limit 1e-3){few}")


def to_matrix(values: Any, shape: tuple[int, int], source: str) -> np.ndarray:
    """A matrix of finite numbers, a copy as float64."""
    try:
        matrix = np.array(values)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{source}: not a matrix of numbers ({error})") from None
    if matrix.dtype.kind not in "fiu":
        raise BadInput(f"{source}: not a matrix of numbers (found {matrix.dtype})")
    if matrix.shape != shape:
        raise BadInput(f"{source}: expected {shape[0]}x{shape[1]} numbers, found {list(matrix.shape)}")
    if not np.isfinite(matrix).all():
        raise BadInput(f"{source}: holds NaN or infinity")
    return matrix.astype(np.float64)
