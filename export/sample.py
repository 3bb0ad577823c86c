"""A small furnished corridor and a clip through it, generated: for trying a bundle and for checking one."""

from pathlib import Path

import numpy as np

from ..runtime.inputs.scene import Scene
from ..runtime.inputs.writing import write_clip, write_scene

__all__ = ["write_sample"]

LENGTH, WIDTH, HEIGHT = 290, 14, 22  # voxels: beyond 256, where bfloat16 coordinates are rounded
FRAME_SIZE = (128, 96)
FPS = 30.0
FRAMES = (3, 11, 18, 26)
FURNITURE = (
    # x, y, width, depth, height in voxels; colour
    ((30, 8, 8, 5, 7), (170, 60, 50)),
    ((62, 1, 6, 4, 12), (60, 90, 170)),
    ((110, 7, 14, 6, 6), (200, 170, 90)),
    ((170, 1, 5, 5, 9), (80, 150, 80)),
    ((235, 8, 10, 5, 8), (150, 90, 160)),
)


def write_sample(folder: Path, voxel_size: float = 0.06, seed: int = 0) -> tuple[Path, Path]:
    """Write a scene and a clip.

    Args:
        folder: gets `scene/` (points.npy, K.txt, poses) and `video/` (frames, clip.json).
        voxel_size: metres; the corridor is 290 voxels long whatever their size.
        seed: of the colours' texture.

    Returns:
        The scene's and the clip's folders.
    """
    points, colours = corridor(np.random.default_rng(seed))
    points *= voxel_size
    intrinsics = np.array([[100.0, 0, FRAME_SIZE[0] / 2], [0, 100.0, FRAME_SIZE[1] / 2], [0, 0, 1]])
    poses = {f"frame_{number:010d}": walking_pose(number / FPS, voxel_size) for number in FRAMES}
    frames = ((stem, render(points, colours, pose, intrinsics, voxel_size)) for stem, pose in poses.items())
    scene = Scene(points.astype(np.float32), colours.astype(np.float32), poses, intrinsics)
    return (
        write_scene(folder / "scene", scene),
        write_clip(folder / "video", frames, fps=FPS, seconds=1.0),
    )


def corridor(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] in voxels and colours [P, 3] in 0..255: floor, one wall, furniture; two points a voxel's edge."""
    surfaces = [
        (plane((0, 0, 0), (LENGTH, 0, 0), (0, WIDTH, 0)), (120, 100, 80)),
        (plane((0, 0, 0), (LENGTH, 0, 0), (0, 0, HEIGHT)), (190, 190, 180)),
    ]
    for (x, y, width, depth, height), colour in FURNITURE:
        corner, right, back, up = (x, y, 0), (width, 0, 0), (0, depth, 0), (0, 0, height)
        top, far, side = (x, y, height), (x, y + depth, 0), (x + width, y, 0)
        faces = ((corner, right, up), (corner, back, up), (far, right, up), (side, back, up), (top, right, back))
        surfaces += [(plane(*face), colour) for face in faces]
    points = np.concatenate([surface for surface, _ in surfaces])
    colours = np.concatenate([np.tile(colour, (len(surface), 1)) for surface, colour in surfaces]).astype(float)
    texture = generator.normal(0, 12, (len(points), 1)) + 15 * np.sin(points @ [[0.7], [1.1], [0.9]])
    # not on voxels' faces, where a rounding decides which voxel it is
    return points + 0.25, np.clip(colours + texture, 0, 255)


def plane(corner: tuple[float, ...], first: tuple[float, ...], second: tuple[float, ...]) -> np.ndarray:
    """A rectangle spanned by two vectors, sampled twice a voxel, [P, 3]."""
    steps = [np.arange(0, np.linalg.norm(side), 0.5) / np.linalg.norm(side) for side in (first, second)]
    u, v = (axis.reshape(-1, 1) for axis in np.meshgrid(*steps))
    return np.asarray(corner) + u * np.asarray(first) + v * np.asarray(second)


def walking_pose(seconds: float, voxel_size: float) -> np.ndarray:
    """Camera-to-world [4, 4], OpenCV axes: walks along the corridor, looks ahead and slightly down, and turns."""
    heading, pitch = 0.15 - 0.4 * seconds, -0.25
    forward = np.array([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(heading), -np.cos(heading), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = np.array([4 + 20 * seconds, WIDTH / 2, 20]) * voxel_size
    return pose


def render(
    points: np.ndarray, colours: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray, voxel_size: float
) -> np.ndarray:
    """A frame [H, W, 3] uint8: points as squares of their size on the image, the nearest on top."""
    width, height = FRAME_SIZE
    camera = (points - pose[:3, 3]) @ pose[:3, :3]
    ahead = camera[:, 2] > voxel_size
    order = np.argsort(-camera[ahead, 2])
    camera, shown = camera[ahead][order], colours[ahead][order]
    pixels = (camera @ intrinsics.T)[:, :2] / camera[:, 2:]
    reach = np.minimum(intrinsics[0, 0] * 0.3 * voxel_size / camera[:, 2], 6)
    frame = np.full((height, width, 3), 25, np.uint8)
    for dy in range(-6, 7):
        for dx in range(-6, 7):
            inside = max(abs(dx), abs(dy)) <= np.ceil(reach)
            x, y = (np.floor(pixels[inside] + [dx, dy])).astype(int).T
            valid = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            frame[y[valid], x[valid]] = shown[inside][valid]
    return frame
