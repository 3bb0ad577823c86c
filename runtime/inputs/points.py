"""Coloured point clouds, from files of a known suffix or from memory (SPEC section 3)."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..errors import BadInput

__all__ = ["READERS", "load_points", "to_points"]

LOG = logging.getLogger(__name__)
GLB_LIMIT, GLB_STEP = 1_000_000, 10


def load_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] float32 in metres and colours [P, 3] float32 in 0..255 from a file.

    Raises:
        BadInput: it has an unknown suffix, or does not hold finite points with colours.
    """
    if path.suffix.lower() not in READERS:
        raise BadInput(f"point cloud {path}: unknown suffix; known are {', '.join(READERS)}")
    if not path.is_file():
        raise BadInput(f"point cloud {path}: no such file")
    points, colours = READERS[path.suffix.lower()](path)
    require_cloud(points, colours, f"point cloud {path}")
    return points, colours


def to_points(points: Any, colours: Any) -> tuple[np.ndarray, np.ndarray]:
    """The same from memory; float32 arrays are taken as they are, not copied.

    Args:
        points: [P, 3] numbers, metres.
        colours: [P, 3] numbers, 0..255.

    Raises:
        BadInput: they are not what they have to be; the argument is named.
    """
    points, colours = to_columns(points, "points"), to_columns(colours, "colours")
    if len(points) != len(colours):
        raise BadInput(f"colours: has {len(colours)} rows for {len(points)} points, expected one a point")
    require_cloud(points, colours, "points and colours")
    return points, colours


def to_columns(values: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise BadInput(f"{name}: expected [P, 3] numbers, found rows that differ ({error})") from None
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise BadInput(f"{name}: expected [P, 3] numbers, found {list(array.shape)} {array.dtype}")
    return as_float32(array)


def as_float32(array: np.ndarray) -> np.ndarray:
    """Numbers as contiguous float32; what is beyond them becomes infinite, which `require_cloud` refuses."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def require_cloud(points: np.ndarray, colours: np.ndarray, source: str) -> None:
    """Raise BadInput unless there are points, all finite, with colours in 0..255."""
    if not len(points):
        raise BadInput(f"{source}: holds no points")
    for values, meaning in ((points, "coordinates"), (colours, "colours")):
        if bad := int((~np.isfinite(values)).any(axis=1).sum()):
            raise BadInput(f"{source}: {bad} of {len(values)} points have {meaning} that are NaN or infinite")
    if colours.min() < 0 or colours.max() > 255:
        raise BadInput(f"{source}: colours span {colours.min():g}..{colours.max():g}, expected 0..255")
    if 0 < colours.max() <= 1:
        LOG.warning("%s: all colours are within 0..1; 0..255 is expected, so the scene is black", source)


def read_npy(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, BadZipFile) as error:
        raise BadInput(f"point cloud {path}: not a plain .npy array ({error})") from None
    if not isinstance(array, np.ndarray):
        raise BadInput(f"point cloud {path}: an archive of arrays, expected one plain .npy array")
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise BadInput(
            f"point cloud {path}: expected [P, 6] numbers (x, y, z, r, g, b), found {list(array.shape)} {array.dtype}"
        )
    if array.shape[1] != 6:
        missing = "no colours" if array.shape[1] < 6 else "more than six columns"
        raise BadInput(f"point cloud {path}: {missing}; expected [P, 6] (x, y, z, r, g, b), found {list(array.shape)}")
    return as_float32(array[:, :3]), as_float32(array[:, 3:])


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from plyfile import PlyData, PlyElementParseError, PlyHeaderParseError

    try:
        vertices = PlyData.read(str(path))["vertex"].data
    except (OSError, ValueError, KeyError, EOFError, PlyElementParseError, PlyHeaderParseError) as error:
        raise BadInput(f"point cloud {path}: not a readable PLY file ({error})") from None
    names = vertices.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise BadInput(f"point cloud {path}: vertices lack x, y, z; found {', '.join(names)}")
    if not {"red", "green", "blue"} <= set(names):
        raise BadInput(f"point cloud {path}: no colours; vertices lack red, green, blue; found {', '.join(names)}")
    groups = (("x", "y", "z"), ("red", "green", "blue"))
    try:
        points, colours = (as_float32(np.stack([vertices[name] for name in group], axis=1)) for group in groups)
    except (TypeError, ValueError) as error:
        raise BadInput(f"point cloud {path}: vertices hold something else than numbers ({error})") from None
    return points, colours


def read_glb(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first geometry; over a million points every tenth, as the authors do."""
    import trimesh

    try:
        loaded = trimesh.load_scene(path)
        geometry = next(iter(loaded.geometry.values()))
        points = np.asarray(geometry.vertices)
    except Exception as error:  # trimesh raises whatever its parsers meet
        reason = str(error) or type(error).__name__
        raise BadInput(f"point cloud {path}: not a readable GLB file with a geometry ({reason})") from None
    colours = getattr(geometry, "colors", None)
    if colours is None and geometry.visual.kind == "vertex":
        colours = geometry.visual.vertex_colors
    if colours is None or len(colours) != len(points):
        raise BadInput(f"point cloud {path}: no colours; its first geometry has no colour a vertex")
    step = GLB_STEP if len(points) > GLB_LIMIT else 1
    return as_float32(points[::step]), as_float32(np.asarray(colours)[::step, :3])


READERS: Mapping[str, Callable[[Path], tuple[np.ndarray, np.ndarray]]] = {
    ".npy": read_npy,
    ".ply": read_ply,
    ".glb": read_glb,
}
