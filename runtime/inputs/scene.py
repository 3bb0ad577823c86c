"""Scenes: a coloured point cloud, camera poses, intrinsics, from files or from memory (SPEC sections 3 and 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from .cameras import load_intrinsics, load_poses, require_convention, to_intrinsics, to_pose
from .clip import Clip
from .clouds.depth import DEPTH_FOLDER, fuse_depth
from .points import READERS, load_points, to_points

__all__ = ["Scene", "load_scene", "projected_share"]

Poses = Mapping[str, np.ndarray]

CHECKED_POINTS = 50_000


@dataclass(frozen=True)
class Scene:
    """An environment and where the camera was.

    Attributes:
        points: [P, 3] float32, metres from `offset`.
        colours: [P, 3] float32, 0..255.
        poses: camera-to-world matrices [4, 4] float64 with OpenCV axes, by the frame's stem; of a scene from files,
            each is read and checked when it is asked for. They are in the coordinates of the files: `select_frames`
            takes the offset off.
        intrinsics: [3, 3] float64, pixels of the frames as they are on disk or in memory.
        offset: [3] float64, metres: where the points' origin is in the coordinates of the files; zero for a room.
        pose_convention: by which the poses were read, one of `POSE_CONVENTIONS`, or `auto`.
    """

    points: np.ndarray
    colours: np.ndarray
    poses: Mapping[str, np.ndarray]
    intrinsics: np.ndarray
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))
    pose_convention: str = "c2w"

    @classmethod
    def of(
        cls,
        points: Any,
        colours: Any,
        intrinsics: Any,
        *,
        poses: Mapping[str, Any] | None = None,
        pose_convention: str = "c2w",
        crop: float | None = None,
    ) -> "Scene":
        """A scene from what is in memory; gives what `load_scene` gives for the same numbers in files.

        Args:
            points: [P, 3] numbers, metres; taken as float32, once the offset of a map is taken off.
            colours: [P, 3] numbers, uint8, or others in 0..255, or floats in 0..1.
            intrinsics: [3, 3] numbers, pixels of the frames.
            poses: [4, 4] by the frames' stems, for a clip from files; a clip in memory brings its own.
            pose_convention: how `poses` are meant, one of `POSE_CONVENTIONS`.
            crop: leave out points further than this from the middle, metres.

        Raises:
            BadInput: an argument is not what it has to be.
        """
        require_convention(pose_convention)
        named = {stem: to_pose(pose, f"poses[{stem!r}]", pose_convention) for stem, pose in (poses or {}).items()}
        cloud = to_points(points, colours, crop=crop)
        return cls(
            cloud.points, cloud.colours, named, to_intrinsics(intrinsics, "intrinsics"), cloud.offset, pose_convention
        )


def load_scene(
    path: Path | str,
    *,
    poses: Path | str | Poses | None = None,
    intrinsics: Path | str | np.ndarray | None = None,
    pose_convention: str = "c2w",
    stems: Sequence[str] | None = None,
    crop: float | None = None,
    glb: str = "all",
    clip: Clip | None = None,
    depth_scale: float = 1000.0,
) -> Scene:
    """Read a scene; its poses are looked for, and read when frames are chosen.

    Args:
        path: folder with `points` of a suffix of `READERS`, or with depth frames in `depth`, and with `K.txt` and
            `poses/*.txt`; or a point-cloud file.
        poses: folder of 4x4 text files named like the frames, or poses that were read already; by default `poses` in
            the scene's folder.
        intrinsics: 3x3 text file, or a matrix that was read already; by default `K.txt` in the scene's folder.
        pose_convention: how the pose files are meant, one of `POSE_CONVENTIONS`; OpenCV axes unless it says OpenGL.
        stems: frames whose poses are looked for, those of them that have one; by default all in the folder.
        crop: leave out points further than this from the cloud's middle along an axis, metres.
        glb: which geometries of a GLB, `all` or the `first` as it is stored.
        clip: the frames that depth frames belong to, for their colours.
        depth_scale: number in a depth frame that stands for one metre.

    Raises:
        BadInput: something is missing or is not what it has to be.
    """
    path = Path(path)
    cloud, poses, intrinsics = locate(path, poses, intrinsics)
    found_poses = poses if isinstance(poses, Mapping) else load_poses(Path(poses), pose_convention, stems)
    matrix = intrinsics if isinstance(intrinsics, np.ndarray) else load_intrinsics(Path(intrinsics))
    if cloud.is_file():
        known = load_points(cloud, crop=crop, glb=glb)
    elif clip is None:
        raise BadInput(f"scene {path}: depth frames have the colours of a clip's frames; give load_scene the clip")
    else:
        known = to_points(*fuse_depth(cloud, clip, found_poses, matrix, depth_scale), crop=crop, source=str(cloud))
    return Scene(known.points, known.colours, found_poses, matrix, known.offset, pose_convention)


def locate(
    path: Path, poses: Path | str | Poses | None, intrinsics: Path | str | np.ndarray | None
) -> tuple[Path, Path | str | Poses, Path | str | np.ndarray]:
    """Where a scene's cloud (or folder of depth frames), poses and intrinsics are; errors as in `load_scene`."""
    if path.is_dir():
        names = [f"points{suffix}" for suffix in READERS]
        found = [path / name for name in names if (path / name).is_file()]
        found += [path / DEPTH_FOLDER] if not found and (path / DEPTH_FOLDER).is_dir() else []
        if len(found) != 1:
            raise BadInput(f"scene {path}: expected one of {', '.join(names)} or {DEPTH_FOLDER}/, found {len(found)}")
        poses = path / "poses" if poses is None else poses
        return found[0], poses, path / "K.txt" if intrinsics is None else intrinsics
    if not path.is_file():
        raise BadInput(f"scene {path}: no such file or folder")
    if poses is None or intrinsics is None:
        raise BadInput(f"scene {path} is a file; give --poses DIR and --intrinsics FILE with it, or --cameras")
    return path, poses, intrinsics


def projected_share(scene: Scene, poses: np.ndarray, frame_size: tuple[int, int]) -> float:
    """Share of the points that lie inside at least one of the frames with poses [T, 4, 4], as `select_frames` gives."""
    width, height = frame_size
    points = scene.points[:: max(1, len(scene.points) // CHECKED_POINTS)].astype(np.float64)
    seen = np.zeros(len(points), bool)
    for pose in poses:
        camera = (points - pose[:3, 3]) @ pose[:3, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = (camera @ scene.intrinsics.T)[:, :2] / camera[:, 2:]
            seen |= (camera[:, 2] > 0) & (pixels >= 0).all(axis=1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    return float(seen.mean())
