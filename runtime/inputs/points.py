"""Coloured point clouds, from files of a known suffix or from memory (SPEC section 3)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from .clouds.colours import to_bytes
from .clouds.extent import cropped, take_off, warn_of_strays, whole
from .clouds.glb import read_first_geometry, read_glb
from .clouds.las import read_las
from .clouds.npy import read_npy, read_npz
from .clouds.pcd import read_pcd
from .clouds.ply import read_ply
from .clouds.text import read_text

__all__ = ["GLB_CHOICES", "READERS", "PointCloud", "load_points", "to_points"]

Reader = Callable[[Path], tuple[np.ndarray, np.ndarray]]
READERS: Mapping[str, Reader] = {
    ".npy": read_npy,
    ".ply": read_ply,
    ".glb": read_glb,
    ".gltf": read_glb,
    ".npz": read_npz,
    ".pcd": read_pcd,
    ".las": read_las,
    ".laz": read_las,
    **dict.fromkeys((".xyz", ".txt", ".csv", ".asc", ".pts"), read_text),
}
FIRST_GEOMETRY: Mapping[str, Reader] = {".glb": read_first_geometry, ".gltf": read_first_geometry}
GLB_CHOICES: Mapping[str, Mapping[str, Reader]] = {"all": READERS, "first": {**READERS, **FIRST_GEOMETRY}}


@dataclass(frozen=True)
class PointCloud:
    """Points about an origin of their own.

    Attributes:
        points: [P, 3] float32, metres from `offset`.
        colours: [P, 3] float32, 0..255.
        offset: [3] float64, metres: where the points' origin is in the coordinates of their file; zero for a room.
    """

    points: np.ndarray
    colours: np.ndarray
    offset: np.ndarray


def load_points(path: Path, *, crop: float | None = None, glb: str = "all") -> PointCloud:
    """Read a point cloud file of any of the suffixes of `READERS`; the rules are those of `to_points`.

    Args:
        path: the file.
        crop: leave out points further than this from the middle, metres.
        glb: which geometries of a GLB: `all` where the scene graph puts them, or the `first` as it is stored, which
            is what the authors read.

    Raises:
        BadInput: it has an unknown suffix, or does not hold finite points with colours.
        MissingDependency: its format needs a library that is not installed.
    """
    source = f"point cloud {path}"
    if glb not in GLB_CHOICES:
        raise BadInput(f"--glb {glb}: unknown; known are {', '.join(GLB_CHOICES)}")
    reader = GLB_CHOICES[glb].get(path.suffix.lower())
    if reader is None:
        raise BadInput(f"{source}: unknown suffix; known are {', '.join(READERS)}")
    if not path.is_file():
        raise BadInput(f"{source}: no such file")
    try:
        points, colours = reader(path)
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from None
    except OSError as error:
        raise BadInput(f"{source}: cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise BadInput(f"{source}: not enough memory to read it") from None
    return to_cloud(points, colours, source, crop)


def to_points(
    points: Any, colours: Any, *, crop: float | None = None, source: str = "points and colours"
) -> PointCloud:
    """A point cloud from memory; float32 arrays of a room are taken as they are, not copied.

    Points that are NaN or infinite, and those with such colours, are left out and counted, up to nine of ten.
    Coordinates of a map, whose middle is over a kilometre from the origin along an axis, lose a multiple of 126 m
    along it before they become float32. Points far off are told.

    Args:
        points: [P, 3] numbers, metres.
        colours: [P, 3] numbers; uint8, or of a range that `to_bytes` knows.
        crop: leave out points further than this from the middle, metres.
        source: what messages name them.

    Raises:
        BadInput: they are not what they have to be; the argument is named.
    """
    points, colours = to_columns(points, "points"), to_columns(colours, "colours")
    if len(points) != len(colours):
        raise BadInput(f"colours: has {len(colours)} rows for {len(points)} points, expected one a point")
    return to_cloud(points, colours, source, crop)


def to_columns(values: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise BadInput(f"{name}: expected [P, 3] numbers, found rows that differ ({error})") from None
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise BadInput(f"{name}: expected [P, 3] numbers, found {list(array.shape)} {array.dtype}")
    return array


def to_cloud(points: np.ndarray, colours: np.ndarray, source: str, crop: float | None) -> PointCloud:
    """What the model takes, of points and colours as they are stored."""
    if not len(points):
        raise BadInput(f"{source}: holds no points")
    if not len(points) == len(colours):
        raise BadInput(f"{source}: has {len(points)} points and {len(colours)} colours")
    points, colours = whole(points, colours, source)
    if crop is not None:
        points, colours = cropped(points, colours, crop, source)
    warn_of_strays(points, source)
    centred, offset = take_off(points)
    return PointCloud(centred, to_bytes(colours, source), offset)
