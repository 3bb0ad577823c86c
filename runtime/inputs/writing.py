"""Scenes and clips written as folders that `load_scene` and `load_clip` read."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .scene import Scene

__all__ = ["write_clip", "write_frames", "write_matrix", "write_poses", "write_scene"]


def write_scene(folder: Path, scene: Scene) -> Path:
    """Write `points.npy`, `K.txt` and `poses/`; returns the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    points = scene.points + scene.offset if scene.offset.any() else scene.points
    np.save(folder / "points.npy", np.concatenate([points, scene.colours], axis=1))
    write_matrix(folder / "K.txt", scene.intrinsics)
    write_poses(folder / "poses", scene.poses)
    return folder


def write_clip(
    folder: Path,
    frames: Iterable[tuple[str, np.ndarray]],
    *,
    fps: float,
    seconds: float | None = None,
    suffix: str = ".png",
) -> Path:
    """Write frames and `clip.json`.

    Args:
        folder: is made.
        frames: stem and pixels [H, W, 3] uint8 of each, written one at a time.
        fps: frames a second.
        seconds: length, if it is not that of the frames.
        suffix: of the image files; `.jpg` loses detail.

    Returns:
        The folder.
    """
    write_frames(folder, frames, suffix)
    described = {"fps": fps} if seconds is None else {"fps": fps, "seconds": seconds}
    (folder / "clip.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
    return folder


def write_frames(folder: Path, frames: Iterable[tuple[str, np.ndarray]], suffix: str, **quality: Any) -> None:
    """Write image files by their stems into a folder, which is made; `quality` is what Pillow takes for the format."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for stem, pixels in frames:
        Image.fromarray(pixels).save(folder / f"{stem}{suffix}", **quality)


def write_poses(folder: Path, poses: Mapping[str, np.ndarray]) -> None:
    """Write poses [4, 4] by the stems of their frames into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, pose in poses.items():
        write_matrix(folder / f"{stem}.txt", pose)


def write_matrix(file: Path, matrix: np.ndarray) -> None:
    """Write a pose or intrinsics with as many digits as give the same float64 back."""
    np.savetxt(file, matrix, fmt="%.17g")
