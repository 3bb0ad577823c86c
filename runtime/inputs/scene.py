"""Scenes: a coloured point cloud, camera poses, intrinsics, from files or from memory (SPEC sections 3 and 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from .cameras import load_intrinsics, load_poses, require_convention, to_intrinsics, to_pose
from .points import READERS, load_points, to_points

__all__ = ["Scene", "load_scene", "projected_share"]

CHECKED_POINTS = 50_000


@dataclass(frozen=True)
class Scene:
    """An environment and where the camera was.

    Attributes:
        points: [P, 3] float32, metres.
        colours: [P, 3] float32, 0..255.
        poses: camera-to-world matrices [4, 4] float64 with OpenCV axes, by the frame's stem; of a scene from files,
            each is read and checked when it is asked for.
        intrinsics: [3, 3] float64, pixels of the frames as they are on disk or in memory.
    """

    points: np.ndarray
    colours: np.ndarray
    poses: Mapping[str, np.ndarray]
    intrinsics: np.ndarray

    @classmethod
    def of(
        cls,
        points: Any,
        colours: Any,
        intrinsics: Any,
        *,
        poses: Mapping[str, Any] | None = None,
        pose_convention: str = "c2w",
    ) -> "Scene":
        """A scene from what is in memory; gives what `load_scene` gives for the same numbers in files.

        Args:
            points: [P, 3] numbers, metres; taken as float32.
            colours: [P, 3] numbers, 0..255, uint8 or others.
            intrinsics: [3, 3] numbers, pixels of the frames.
            poses: [4, 4] by the frames' stems, for a clip from files; a clip in memory brings its own.
            pose_convention: how `poses` are meant, one of `POSE_CONVENTIONS`.

        Raises:
            BadInput: an argument is not what it has to be.
        """
        require_convention(pose_convention)
        named = {stem: to_pose(pose, f"poses[{stem!r}]", pose_convention) for stem, pose in (poses or {}).items()}
        return cls(*to_points(points, colours), named, to_intrinsics(intrinsics, "intrinsics"))


def load_scene(
    path: Path | str,
    *,
    poses: Path | str | Mapping[str, np.ndarray] | None = None,
    intrinsics: Path | str | np.ndarray | None = None,
    pose_convention: str = "c2w",
    stems: Sequence[str] | None = None,
) -> Scene:
    """Read a scene; its poses are looked for, and read when frames are chosen.

    Args:
        path: folder with `points.npy|ply|glb`, `K.txt` and `poses/*.txt`, or a point-cloud file.
        poses: folder of 4x4 text files named like the frames, or poses that were read already; by default `poses` in
            the scene's folder.
        intrinsics: 3x3 text file, or a matrix that was read already; by default `K.txt` in the scene's folder.
        pose_convention: how the pose files are meant, one of `POSE_CONVENTIONS`; OpenCV axes unless it says OpenGL.
        stems: frames whose poses are looked for, those of them that have one; by default all in the folder.

    Raises:
        BadInput: something is missing or is not what it has to be.
    """
    path = Path(path)
    if path.is_dir():
        names = [f"points{suffix}" for suffix in READERS]
        found = [path / name for name in names if (path / name).is_file()]
        if len(found) != 1:
            raise BadInput(f"scene {path}: expected one of {', '.join(names)}, found {len(found)}")
        cloud = found[0]
        poses = path / "poses" if poses is None else poses
        intrinsics = path / "K.txt" if intrinsics is None else intrinsics
    elif path.is_file():
        if poses is None or intrinsics is None:
            raise BadInput(f"scene {path} is a file; give --poses DIR and --intrinsics FILE with it, or --cameras")
        cloud = path
    else:
        raise BadInput(f"scene {path}: no such file or folder")
    points, colours = load_points(cloud)
    if not isinstance(poses, Mapping):
        poses = load_poses(Path(poses), pose_convention, stems)
    if not isinstance(intrinsics, np.ndarray):
        intrinsics = load_intrinsics(Path(intrinsics))
    return Scene(points, colours, poses, intrinsics)


def projected_share(scene: Scene, poses: np.ndarray, frame_size: tuple[int, int]) -> float:
    """Share of the points that lie inside at least one of the frames with poses [T, 4, 4]."""
    width, height = frame_size
    points = scene.points[:: max(1, len(scene.points) // CHECKED_POINTS)].astype(np.float64)
    seen = np.zeros(len(points), bool)
    for pose in poses:
        camera = (points - pose[:3, 3]) @ pose[:3, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = (camera @ scene.intrinsics.T)[:, :2] / camera[:, 2:]
            seen |= (camera[:, 2] > 0) & (pixels >= 0).all(axis=1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    return float(seen.mean())
