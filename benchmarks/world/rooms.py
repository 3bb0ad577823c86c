"""Generated rooms of any number of voxels, for measuring at scale."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ...runtime.errors import require_at_least
from ...runtime.inputs.scene import Scene
from ...runtime.inputs.writing import write_clip, write_scene
from ..folders import make_new_folder

__all__ = ["room", "write_room"]

SAMPLES_A_METRE = 20
NOISE = 0.002
FRAME_SIZE = (640, 480)
FPS = 30.0
EYES = 1.5


def room(voxels: int, seed: int = 0, voxel_size: float = 0.06) -> np.ndarray:
    """A scanned room: floor, walls with gaps, furniture turned at random, clutter, noise.

    Args:
        voxels: how many; the room is made larger until it has them, and the surplus is left out at one end.
        seed: of furniture and noise.
        voxel_size: metres.

    Returns:
        [voxels, 3] int32, unique, minimum 0, in random order.
    """
    scale = 1.0
    while True:
        generator = np.random.default_rng(seed)
        points = np.concatenate(list(surfaces(generator, scale)))
        points += generator.normal(0, NOISE, points.shape)
        cells = np.unique(np.floor(points / voxel_size).astype(np.int32), axis=0)
        if len(cells) >= voxels:
            break
        scale *= 1.08
    kept = generator.permutation(cells[:voxels])
    return kept - kept.min(axis=0)


def write_room(out: Path, voxels: int, frames: int, *, seed: int = 0, voxel_size: float = 0.06) -> tuple[Path, Path]:
    """Write a room as a scene, and a clip of somebody who walks through it; the frames show random colours.

    Args:
        out: new folder, gets `scene/` and `video/`.
        voxels: exactly how many the scene has at this voxel size.
        frames: of the clip, each with a pose.
        seed: of everything.
        voxel_size: metres.

    Returns:
        The scene's and the clip's folders.

    Raises:
        BadInput: a number is out of range, or the folder holds something or cannot be made.
    """
    require_at_least({"--voxels": (voxels, 1), "--frames": (frames, 1), "--seed": (seed, 0)})
    make_new_folder(out)
    generator = np.random.default_rng(seed)
    points = (room(voxels, seed, voxel_size) + 0.5) * voxel_size
    colours = generator.integers(0, 256, points.shape)
    width, height = FRAME_SIZE
    intrinsics = np.array([[0.6 * width, 0, width / 2], [0, 0.6 * width, height / 2], [0, 0, 1]])
    shares = {f"frame_{number:010d}": (number + 0.5) / frames for number in range(frames)}
    poses = {stem: walking_pose(share, points.max(axis=0)) for stem, share in shares.items()}
    pictures = ((stem, coloured_frame(generator)) for stem in poses)
    scene = Scene(points.astype(np.float32), colours.astype(np.float32), poses, intrinsics)
    return (
        write_scene(out / "scene", scene),
        write_clip(out / "video", pictures, fps=FPS, suffix=".jpg"),
    )


def coloured_frame(generator: np.random.Generator) -> np.ndarray:
    """Soft patches of random colours, [H, W, 3] uint8."""
    patches = generator.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(patches).resize(FRAME_SIZE, Image.Resampling.BICUBIC))


def walking_pose(share: float, extent: np.ndarray) -> np.ndarray:
    """Camera-to-world [4, 4], OpenCV axes, of somebody who crosses a room and turns by half a circle."""
    heading = np.pi * share
    forward = np.array([np.cos(heading), np.sin(heading), -0.2])
    forward /= np.linalg.norm(forward)
    right = np.array([np.sin(heading), -np.cos(heading), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = *(extent[:2] * (0.2 + 0.6 * share)), EYES
    return pose


def surfaces(generator: np.random.Generator, scale: float) -> list[np.ndarray]:
    """Points of all surfaces of a room of about 6 x 5 x 2.6 m times the scale."""
    length, width, height = 6 * scale, 5 * scale, 2.6
    parts = [sheet(generator, (0, 0, 0), (length, 0, 0), (0, width, 0), 0.8)]
    walls = (((0, 0, 0), (length, 0, 0)), ((0, width, 0), (length, 0, 0)), ((0, 0, 0), (0, width, 0)))
    parts += [sheet(generator, start, side, (0, 0, height), 0.7) for start, side in walls]
    for _ in range(int(24 * scale * scale)):
        corner = np.array([*generator.uniform([0, 0], [length - 1.5, width - 1.5]), 0.0])
        turn = generator.choice([0, np.pi / 2, generator.uniform(0, np.pi)])
        size = generator.uniform([0.3, 0.3, 0.3], [1.6, 0.9, 1.3])
        right = size[0] * np.array([np.cos(turn), np.sin(turn), 0])
        back = size[1] * np.array([-np.sin(turn), np.cos(turn), 0])
        up = np.array([0, 0, size[2]])
        faces = ((corner, right, up), (corner, back, up), (corner + back, right, up), (corner + right, back, up))
        parts += [sheet(generator, *face) for face in (*faces, (corner + up, right, back))]
    for _ in range(int(30 * scale * scale)):
        foot = np.array([*generator.uniform([0, 0], [length, width]), 0.0])
        parts.append(foot + np.linspace(0, 1, 200)[:, None] * [*generator.normal(0, 0.2, 2), 0.9])
    return parts


def sheet(
    generator: np.random.Generator, corner: ArrayLike, first: ArrayLike, second: ArrayLike, kept: float = 1.0
) -> np.ndarray:
    """A rectangle sampled at random, with holes where `kept` is below one, [P, 3]."""
    corner, first, second = (np.asarray(vector, np.float64) for vector in (corner, first, second))
    area = np.linalg.norm(np.cross(first, second))
    at = generator.random((int(area * SAMPLES_A_METRE**2), 2))
    if kept < 1:
        at = at[np.sin(7 * at[:, 0] + corner[0]) * np.sin(9 * at[:, 1] + corner[1]) < kept]
    return corner + at[:, :1] * first + at[:, 1:] * second
