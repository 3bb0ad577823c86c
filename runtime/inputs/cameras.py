"""Where cameras were and what they see: poses and intrinsics, from text files or from memory (SPEC section 5)."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput

__all__ = [
    "POSE_CONVENTIONS",
    "PoseFiles",
    "load_intrinsics",
    "load_poses",
    "require_convention",
    "to_intrinsics",
    "to_pose",
]

POSE_CONVENTIONS = ("c2w", "w2c", "c2w-opengl", "w2c-opengl")
RIGID_TOLERANCE = 1e-3
FURTHEST = 1e6
LARGEST_PIXEL = 1e6
FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])


class PoseFiles(Mapping[str, np.ndarray]):
    """Poses of a folder by file stem, [4, 4] float64; a file is read and checked when its pose is asked for.

    A folder holds a pose for every frame of a long recording, of which a question needs a few.
    """

    def __init__(self, folder: Path, stems: Sequence[str], convention: str):
        """Read nothing yet; `stems` are in the order of their files' names."""
        self._folder, self._stems, self._convention = folder, dict.fromkeys(stems), convention

    def __getitem__(self, stem: str) -> np.ndarray:
        """Raises BadInput unless the file holds a rigid pose."""
        if stem not in self._stems:
            raise KeyError(stem)
        file = self._folder / f"{stem}.txt"
        return to_pose(read_numbers(file, f"pose {file}"), f"pose {file}", self._convention)

    def __contains__(self, stem: object) -> bool:
        return stem in self._stems

    def __iter__(self) -> Iterator[str]:
        return iter(self._stems)

    def __len__(self) -> int:
        return len(self._stems)


def load_poses(folder: Path, convention: str = "c2w", stems: Sequence[str] | None = None) -> PoseFiles:
    """Camera-to-world poses with OpenCV axes, by file stem; no file is read yet.

    Args:
        folder: 4x4 text files named like the frames.
        convention: how they are meant, one of `POSE_CONVENTIONS`.
        stems: frames whose poses are looked for, which is quicker than to list a long recording; by default all.

    Raises:
        BadInput: there are none, or the convention is not known.
    """
    require_convention(convention)
    expected = "expected a folder of 4x4 .txt files named like the frames"
    if stems is not None:
        found = [stem for stem in stems if (folder / f"{stem}.txt").is_file()]
        if not found:
            raise BadInput(f"poses {folder}: no poses among {stems[0]}..{stems[-1]}; {expected}")
        return PoseFiles(folder, found, convention)
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".txt"))
    except OSError as error:
        raise BadInput(f"poses {folder}: no poses; {expected} ({error.strerror})") from None
    if not names:
        raise BadInput(f"poses {folder}: no poses; {expected}")
    return PoseFiles(folder, [name.removesuffix(".txt") for name in names], convention)


def load_intrinsics(path: Path) -> np.ndarray:
    """Intrinsics [3, 3] float64 from a text file; raises BadInput for what `to_intrinsics` refuses."""
    return to_intrinsics(read_numbers(path, f"intrinsics {path}"), f"intrinsics {path}")


def to_pose(values: Any, source: str, convention: str = "c2w") -> np.ndarray:
    """A pose that is meant by a convention as camera-to-world with OpenCV axes, [4, 4] float64.

    Args:
        values: [4, 4] numbers.
        source: what an error names them.
        convention: one of `POSE_CONVENTIONS`.

    Raises:
        BadInput: they are not a rotation and a translation.
    """
    pose = to_matrix(values, (4, 4), source)
    require_rigid(pose, source)
    if convention.startswith("w2c"):
        pose = np.linalg.inv(pose)
    if convention.endswith("opengl"):
        pose = pose @ FLIP_YZ
    return pose


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


def require_convention(convention: str) -> None:
    """Raise BadInput unless a pose convention is known."""
    if convention not in POSE_CONVENTIONS:
        raise BadInput(f"--pose-convention {convention}: unknown; known are {', '.join(POSE_CONVENTIONS)}")


def require_rigid(pose: np.ndarray, source: str) -> None:
    """Raise BadInput unless a pose is a rotation and a translation."""
    rotation = pose[:3, :3]
    deviation = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if deviation > RIGID_TOLERANCE:
        raise BadInput(f"{source}: not rigid; its rotation deviates from orthonormal by {deviation:.2g} (limit 1e-3)")
    if np.linalg.det(rotation) < 0:
        raise BadInput(f"{source}: not rigid; its rotation mirrors (determinant -1)")
    if np.abs(pose[3] - [0, 0, 0, 1]).max() > RIGID_TOLERANCE:
        raise BadInput(f"{source}: not rigid; its last row is {pose[3].tolist()}, expected 0 0 0 1")
    if np.abs(pose[:3, 3]).max() > FURTHEST:
        raise BadInput(f"{source}: its translation is {pose[:3, 3].tolist()}, expected metres")


def read_numbers(path: Path, source: str) -> list[list[float]]:
    """The rows of numbers in a text file, between spaces or commas."""
    if not path.is_file():
        raise BadInput(f"{source}: no such file")
    try:
        rows = [line.replace(",", " ").split() for line in path.read_text().splitlines() if line.strip()]
        return [[float(word) for word in row] for row in rows]
    except (OSError, ValueError) as error:
        raise BadInput(f"{source}: not a matrix of numbers ({error})") from None


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
