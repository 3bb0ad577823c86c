"""Scenes from files: a coloured point cloud, camera poses, intrinsics (SPEC sections 3 and 5)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..errors import BadInput

__all__ = ["POSE_CONVENTIONS", "Scene", "load_scene"]

LOG = logging.getLogger(__name__)
POINT_SUFFIXES = (".npy", ".ply", ".glb")
GLB_LIMIT, GLB_STEP = 1_000_000, 10
RIGID_TOLERANCE = 1e-3
FURTHEST = 1e6
LARGEST_PIXEL = 1e6
FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])
POSE_CONVENTIONS = ("c2w", "w2c", "c2w-opengl", "w2c-opengl")


@dataclass(frozen=True)
class Scene:
    """An environment and where the camera was.

    Attributes:
        points: [P, 3] float32, metres.
        colours: [P, 3] float32, 0..255.
        poses: camera-to-world matrices [4, 4] float64 with OpenCV axes, by the frame's stem.
        intrinsics: [3, 3] float64, pixels of the frames as they are on disk.
    """

    points: np.ndarray
    colours: np.ndarray
    poses: Mapping[str, np.ndarray]
    intrinsics: np.ndarray


def load_scene(
    path: Path,
    *,
    poses: Path | None = None,
    intrinsics: Path | None = None,
    pose_convention: str = "c2w",
    stems: Sequence[str] | None = None,
) -> Scene:
    """Read a scene.

    Args:
        path: folder with `points.npy|ply|glb`, `K.txt` and `poses/*.txt`, or a point-cloud file.
        poses: folder of 4x4 text files named like the frames; by default `poses` in the scene's folder.
        intrinsics: 3x3 text file; by default `K.txt` in the scene's folder.
        pose_convention: how the pose files are meant, one of `POSE_CONVENTIONS`; OpenCV axes unless it says OpenGL.
        stems: frames whose poses are read, those of them that have one; by default all in the folder.

    Raises:
        BadInput: something is missing or is not what it has to be.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / f"points{suffix}" for suffix in POINT_SUFFIXES if (path / f"points{suffix}").is_file()]
        if len(found) != 1:
            raise BadInput(f"scene {path}: expected one of points.npy, points.ply, points.glb, found {len(found)}")
        cloud, poses, intrinsics = found[0], poses or path / "poses", intrinsics or path / "K.txt"
    elif path.is_file():
        if poses is None or intrinsics is None:
            raise BadInput(f"scene {path} is a file; give --poses DIR and --intrinsics FILE with it")
        cloud = path
    else:
        raise BadInput(f"scene {path}: no such file or folder")
    points, colours = load_points(cloud)
    return Scene(points, colours, load_poses(Path(poses), pose_convention, stems), load_intrinsics(Path(intrinsics)))


def load_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] float32 in metres and colours [P, 3] float32 in 0..255."""
    readers = {".npy": read_npy, ".ply": read_ply, ".glb": read_glb}
    if path.suffix.lower() not in readers:
        raise BadInput(f"point cloud {path}: unknown suffix; known are {', '.join(readers)}")
    if not path.is_file():
        raise BadInput(f"point cloud {path}: no such file")
    points, colours = readers[path.suffix.lower()](path)
    if not len(points):
        raise BadInput(f"point cloud {path}: holds no points")
    for values, meaning in ((points, "coordinates"), (colours, "colours")):
        if bad := int((~np.isfinite(values)).any(axis=1).sum()):
            raise BadInput(f"point cloud {path}: {bad} of {len(values)} points have {meaning} that are NaN or infinite")
    if colours.min() < 0 or colours.max() > 255:
        raise BadInput(f"point cloud {path}: colours span {colours.min():g}..{colours.max():g}, expected 0..255")
    if 0 < colours.max() <= 1:
        LOG.warning("point cloud %s: all colours are within 0..1; 0..255 is expected, so the scene is black", path)
    return points, colours


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
    return np.ascontiguousarray(array[:, :3], np.float32), np.ascontiguousarray(array[:, 3:], np.float32)


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
        points, colours = (np.stack([vertices[name] for name in group], axis=1).astype(np.float32) for group in groups)
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
    return points[::step].astype(np.float32), np.asarray(colours)[::step, :3].astype(np.float32)


def load_poses(folder: Path, convention: str = "c2w", stems: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Camera-to-world poses [4, 4] float64 with OpenCV axes, by file stem; of all files, or of those named."""
    if convention not in POSE_CONVENTIONS:
        raise BadInput(f"--pose-convention {convention}: unknown; known are {', '.join(POSE_CONVENTIONS)}")
    if stems is None:
        files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    else:
        files = [file for stem in stems if (file := folder / f"{stem}.txt").is_file()]
    if not files:
        wanted = f" among {stems[0]}..{stems[-1]}" if stems else ""
        raise BadInput(f"poses {folder}: no poses{wanted}; expected a folder of 4x4 .txt files named like the frames")
    poses = {}
    for file in files:
        pose = read_matrix(file, (4, 4), "pose")
        require_rigid(pose, file)
        if convention.startswith("w2c"):
            pose = np.linalg.inv(pose)
        if convention.endswith("opengl"):
            pose = pose @ FLIP_YZ
        poses[file.stem] = pose
    return poses


def load_intrinsics(path: Path) -> np.ndarray:
    """Intrinsics [3, 3] float64."""
    matrix = read_matrix(path, (3, 3), "intrinsics")
    if np.abs(matrix[2] - [0, 0, 1]).max() > RIGID_TOLERANCE:
        raise BadInput(f"intrinsics {path}: the last row is {matrix[2].tolist()}, expected 0 0 1")
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise BadInput(
            f"intrinsics {path}: focal lengths are {matrix[0, 0]:g} and {matrix[1, 1]:g}, expected pixels > 0"
        )
    if min(matrix[0, 0], matrix[1, 1]) < 1 / LARGEST_PIXEL or np.abs(matrix).max() > LARGEST_PIXEL:
        raise BadInput(f"intrinsics {path}: {matrix.tolist()} are no focal lengths and centre in pixels")
    return matrix


def require_rigid(pose: np.ndarray, file: Path) -> None:
    """Raise BadInput unless a pose is a rotation and a translation."""
    rotation = pose[:3, :3]
    deviation = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if deviation > RIGID_TOLERANCE:
        raise BadInput(
            f"pose {file}: not rigid; its rotation deviates from orthonormal by {deviation:.2g} (limit 1e-3)"
        )
    if np.linalg.det(rotation) < 0:
        raise BadInput(f"pose {file}: not rigid; its rotation mirrors (determinant -1)")
    if np.abs(pose[3] - [0, 0, 0, 1]).max() > RIGID_TOLERANCE:
        raise BadInput(f"pose {file}: not rigid; its last row is {pose[3].tolist()}, expected 0 0 0 1")
    if np.abs(pose[:3, 3]).max() > FURTHEST:
        raise BadInput(f"pose {file}: its translation is {pose[:3, 3].tolist()}, expected metres")


def read_matrix(path: Path, shape: tuple[int, int], meaning: str) -> np.ndarray:
    """A matrix of finite numbers from a text file, float64."""
    if not path.is_file():
        raise BadInput(f"{meaning} {path}: no such file")
    try:
        rows = [line.replace(",", " ").split() for line in path.read_text().splitlines() if line.strip()]
        matrix = np.array([[float(word) for word in row] for row in rows])
    except (OSError, ValueError) as error:
        raise BadInput(f"{meaning} {path}: not a matrix of numbers ({error})") from None
    if matrix.shape != shape:
        raise BadInput(f"{meaning} {path}: expected {shape[0]}x{shape[1]} numbers, found {list(matrix.shape)}")
    if not np.isfinite(matrix).all():
        raise BadInput(f"{meaning} {path}: holds NaN or infinity")
    return matrix


def projected_share(scene: Scene, poses: np.ndarray, frame_size: tuple[int, int]) -> float:
    """Share of the points that lie inside at least one of the frames with poses [T, 4, 4]."""
    width, height = frame_size
    points = scene.points[:: max(1, len(scene.points) // 50_000)].astype(np.float64)
    seen = np.zeros(len(points), bool)
    for pose in poses:
        camera = (points - pose[:3, 3]) @ pose[:3, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = (camera @ scene.intrinsics.T)[:, :2] / camera[:, 2:]
            seen |= (camera[:, 2] > 0) & (pixels >= 0).all(axis=1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    return float(seen.mean())
