"""Rooms of the small world in memory, with a clip each, and ways to get them wrong."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from stllm_edge.benchmarks.world.clips import FPS, make_clip, render_clip
from stllm_edge.benchmarks.world.render import INTRINSICS, sample_cloud
from stllm_edge.benchmarks.world.room import make_room
from stllm_edge.runtime.inputs.cameras import OPTICAL_IN_BODY
from stllm_edge.runtime.inputs.clip import Clip
from stllm_edge.runtime.inputs.scene import Scene
from stllm_edge.runtime.inputs.selection import Selection, select_frames

FLIP = np.diag([1.0, -1, -1, 1])
# poses as a file of each convention holds them
STORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "c2w": lambda pose: pose,
    "w2c": np.linalg.inv,
    "c2w-opengl": lambda pose: pose @ FLIP,
    "w2c-opengl": lambda pose: np.linalg.inv(pose @ FLIP),
    "c2w-body": lambda pose: pose @ np.linalg.inv(OPTICAL_IN_BODY),
}
SHOWN = (0, 3, 7, 11)


@dataclass(frozen=True)
class Recording:
    """A scene and a clip of it that fit; each method gives another that may not."""

    scene: Scene
    clip: Clip
    poses: tuple[np.ndarray, ...]

    def selection(self, frames: int = 4) -> Selection:
        return select_frames(self.clip, {}, frames=frames, default=frames)

    def stored(self, convention: str, read_by: str = "c2w") -> "Recording":
        """With poses of a convention that are read by another."""
        return self.posed([STORED[convention](pose) for pose in self.poses], read_by)

    def posed(self, poses: list[np.ndarray], read_by: str = "c2w") -> "Recording":
        frames = list(self.clip.read(range(len(self.clip))))
        return replace(self, clip=Clip.of(frames, poses=poses, fps=FPS, pose_convention=read_by))

    def scaled(self, cloud: float, poses: float) -> "Recording":
        """In other units."""
        moved = [pose @ np.diag([1.0, 1, 1, 1]) for pose in self.poses]
        for pose in moved:
            pose[:3, 3] *= poses
        scene = replace(self.scene, points=(self.scene.points * cloud).astype(np.float32))
        return replace(self.posed(moved), scene=scene)

    def with_intrinsics(self, across: float, down: float) -> "Recording":
        """With those of frames that are so many times as wide and as high."""
        intrinsics = np.diag([across, down, 1.0]) @ self.scene.intrinsics
        return replace(self, scene=replace(self.scene, intrinsics=intrinsics))

    def coloured(self, colours: np.ndarray) -> "Recording":
        return replace(self, scene=replace(self.scene, colours=np.clip(colours, 0, 255).astype(np.float32)))

    def thinned(self, points: int) -> "Recording":
        chosen = np.random.default_rng(0).permutation(len(self.scene.points))[:points]
        scene = replace(self.scene, points=self.scene.points[chosen], colours=self.scene.colours[chosen])
        return replace(self, scene=scene)


def record(seed: int) -> Recording:
    room, generator = make_room(seed, 0), np.random.default_rng(seed)
    clip = make_clip(room, seed, 0, 1)
    frames = [frame.pixels for frame in render_clip(room, clip, generator, SHOWN)]
    poses = tuple(clip.poses[number] for number in SHOWN)
    points, colours = sample_cloud(room, generator)
    return Recording(Scene.of(points, colours, INTRINSICS), Clip.of(frames, poses=poses, fps=FPS / 4), poses)


@pytest.fixture(scope="session")
def recording() -> Recording:
    return record(0)


@pytest.fixture(scope="session")
def recordings() -> list[Recording]:
    """Sixty rooms."""
    return [record(seed) for seed in range(60)]
