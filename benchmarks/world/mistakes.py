"""A scene and a clip that fit, as cameras and people record and write them, and ways to get them wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...runtime.fit.colours import nearest_in_cells, project
from ...runtime.inputs.cameras import BODY, FLIP_YZ, OPTICAL_IN_BODY
from ...runtime.inputs.clip import Clip, load_clip
from ...runtime.inputs.scene import Scene, load_scene
from ...runtime.inputs.selection import Selection, select_frames
from .clips import FPS, make_clip, render_clip
from .render import INTRINSICS, sample_cloud
from .room import make_room

__all__ = ["MISTAKES", "RIGHT", "SHOWN", "STORED", "Mistake", "Take", "read_take", "record"]

# poses as a file of each convention holds them
STORED: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "c2w": lambda pose: pose,
    "w2c": np.linalg.inv,
    "c2w-opengl": lambda pose: pose @ FLIP_YZ,
    "w2c-opengl": lambda pose: np.linalg.inv(pose @ FLIP_YZ),
    BODY: lambda pose: pose @ np.linalg.inv(OPTICAL_IN_BODY),
}
# frames of a clip of the small world
SHOWN = (0, 3, 7, 11)
FRAMES = 4
# of a depth camera and of what finds its way: of the square of the distance, metres, degrees, decimals of a trajectory
DEPTH_NOISE, DRIFT, TURN, DECIMALS = 0.003, 0.01, 0.5, 4
DIM, DARKER, COLOUR_NOISE, THIN = np.array([0.7, 0.85, 0.9]), -5, 25, 2500


@dataclass(frozen=True)
class Take:
    """A scene and a clip that fit; each method gives another that may not.

    Attributes:
        scene: the cloud and the intrinsics.
        clip: frames in memory, with their poses.
        poses: [4, 4] a frame, camera-to-world with OpenCV axes.
    """

    scene: Scene
    clip: Clip
    poses: tuple[np.ndarray, ...]

    def selection(self, frames: int = FRAMES) -> Selection:
        """As many frames as a model sees."""
        return select_frames(self.clip, {}, frames=None, default=frames)

    def stored(self, convention: str, read_by: str = "c2w") -> "Take":
        """With poses of a convention that are read by another."""
        return self.posed([STORED[convention](pose) for pose in self.poses], read_by)

    def posed(self, poses: list[np.ndarray], read_by: str = "c2w") -> "Take":
        """With these poses in the file."""
        frames = list(self.clip.read(range(len(self.clip))))
        clip = Clip.of(frames, poses=poses, times=self.clip.times, pose_convention=read_by)
        return replace(self, clip=clip)

    def scaled(self, cloud: float, poses: float) -> "Take":
        """In other units."""
        moved = [pose.copy() for pose in self.poses]
        for pose in moved:
            pose[:3, 3] *= poses
        scene = replace(self.scene, points=(self.scene.points * cloud).astype(np.float32))
        return replace(self.posed(moved), scene=scene)

    def with_intrinsics(self, across: float, down: float) -> "Take":
        """With those of frames that are so many times as wide and as high."""
        return self.seen_by(np.diag([across, down, 1.0]) @ self.scene.intrinsics)

    def seen_by(self, intrinsics: np.ndarray) -> "Take":
        """With other intrinsics [3, 3]."""
        return replace(self, scene=replace(self.scene, intrinsics=intrinsics))

    def coloured(self, colours: np.ndarray) -> "Take":
        """With other colours [P, 3] of the points."""
        return replace(self, scene=replace(self.scene, colours=np.clip(colours, 0, 255).astype(np.float32)))

    def noisy(self) -> "Take":
        """With colours that are far from exact."""
        colours = self.scene.colours
        return self.coloured(colours + np.random.default_rng(0).normal(0, COLOUR_NOISE, colours.shape))

    def thinned(self, points: int) -> "Take":
        """With so many of the points."""
        return self.of_points(np.random.default_rng(0).permutation(len(self.scene.points))[:points])

    def of_points(self, chosen: np.ndarray) -> "Take":
        """With some of the points."""
        scene = replace(self.scene, points=self.scene.points[chosen], colours=self.scene.colours[chosen])
        return replace(self, scene=scene)

    def halved(self) -> "Take":
        """With the points of one half of the room, that the frames see more of."""
        across, middle = self.scene.points[:, 0], np.median(self.scene.points[:, 0])
        views = [project(self.scene.points, pose, self.scene.intrinsics, self.clip.size)[0] for pose in self.poses]
        beyond = bool(np.median(across[np.concatenate(views)]) > middle)
        return self.of_points(np.flatnonzero((across > middle) == beyond))

    def first(self) -> "Take":
        """Of one frame."""
        frames, poses = list(self.clip.read([0])), self.poses[:1]
        return replace(self, clip=Clip.of(frames, poses=poses), poses=poses)

    def by_depth_camera(self) -> "Take":
        """As a depth camera and a trajectory of TUM give it: what it saw alone, with noise, rounding and drift."""
        draw, seen = np.random.default_rng(0), dict[int, np.ndarray]()
        for pose in self.poses:
            index, pixels, depth = project(self.scene.points, pose, self.scene.intrinsics, self.clip.size)
            nearest = nearest_in_cells(pixels, depth, self.clip.size)
            for point, away in zip(index[nearest], depth[nearest], strict=True):
                noise = draw.normal(0, DEPTH_NOISE * away**2)
                ray = self.scene.points[point] - pose[:3, 3]
                seen.setdefault(int(point), self.scene.points[point] + ray / away * noise)
        take = self.of_points(np.array(list(seen)))
        points = np.array(list(seen.values()), np.float32)
        drifted = [np.round(pose @ small_motion(draw), DECIMALS) for pose in self.poses]
        return replace(take, scene=replace(take.scene, points=points)).posed(drifted)


def small_motion(draw: np.random.Generator) -> np.ndarray:
    """A pose [4, 4] that is nearly none."""
    x, y, z = draw.normal(0, np.deg2rad(TURN), 3)
    motion = np.eye(4)
    left, _, right = np.linalg.svd(np.array([[1, -z, y], [z, 1, -x], [-y, x, 1]]))
    motion[:3, :3], motion[:3, 3] = left @ right, draw.normal(0, DRIFT, 3)
    return motion


def record(seed: int) -> Take:
    """A clip of a room of the small world."""
    room, generator = make_room(seed, 0), np.random.default_rng(seed)
    clip = make_clip(room, seed, 0, 1)
    frames = [frame.pixels for frame in render_clip(room, clip, generator, SHOWN)]
    poses = tuple(clip.poses[number] for number in SHOWN)
    points, colours = sample_cloud(room, generator)
    return Take(Scene.of(points, colours, INTRINSICS), Clip.of(frames, poses=poses, fps=FPS / 4), poses)


def read_take(scene: Path, video: Path, frames: int = FRAMES) -> Take:
    """A scene and frames of a clip from files that fit."""
    known, clip = load_scene(scene), load_clip(video)
    selection = select_frames(clip, known.poses, frames=None, default=frames, offset=known.offset)
    # a clip of few frames shows some of them more than once
    indices = sorted(set(selection.indices))
    poses = tuple(selection.poses[selection.indices.index(place)] for place in indices)
    times = [clip.times[place] for place in indices] if clip.times else None
    return Take(known, Clip.of(list(clip.read(indices)), poses=poses, times=times), poses)


@dataclass(frozen=True)
class Mistake:
    """A way to get a take wrong.

    Attributes:
        kind: what it belongs to.
        change: does it.
        mend: option and value that mend it; the option alone where the value cannot be known.
    """

    kind: str
    change: Callable[[Take], Take]
    mend: str


RIGHT: Mapping[str, Callable[[Take], Take]] = {
    "as they are": lambda take: take,
    "a thin cloud": lambda take: take.thinned(THIN),
    "other exposure": lambda take: take.coloured(take.scene.colours * DIM + DARKER),
    "noise": Take.noisy,
    "half of the cloud": Take.halved,
    "one frame": Take.first,
    "depth camera": Take.by_depth_camera,
    **{f"{name}, named so": lambda take, name=name: take.stored(name, name) for name in STORED if name != "c2w"},  # type: ignore[misc]
}


def of_size(across: float, down: float) -> Callable[[Take], Take]:
    return lambda take: take.with_intrinsics(across, down)


def of_frames(width: int, height: int) -> Callable[[Take], Take]:
    return lambda take: take.with_intrinsics(width / take.clip.size[0], height / take.clip.size[1])


def in_units(cloud: float, poses: float) -> Callable[[Take], Take]:
    return lambda take: take.scaled(cloud, poses)


def misread(stored: str, read_by: str) -> Callable[[Take], Take]:
    return lambda take: take.stored(stored, read_by)


def turned(take: Take) -> Take:
    """With intrinsics of frames that stand upright."""
    intrinsics = take.scene.intrinsics.copy()
    intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2] = intrinsics[[1, 0], [1, 0]], intrinsics[[1, 0], [2, 2]]
    return take.seen_by(intrinsics)


def from_the_middle(take: Take) -> Take:
    """With intrinsics of a renderer, from -1 to 1."""
    intrinsics = np.diag([2 / take.clip.size[0], 2 / take.clip.size[1], 1.0]) @ take.scene.intrinsics
    intrinsics[:2, 2] = 0
    return take.seen_by(intrinsics)


SIZE, SCALE = "--intrinsics-of", "--scale"
MISTAKES: tuple[Mistake, ...] = (
    *(
        Mistake(f"poses are {stored}, read as {read_by}", misread(stored, read_by), f"--pose-convention {stored}")
        for stored in STORED
        for read_by in STORED
        if stored != read_by and "c2w" in (stored, read_by)
    ),
    Mistake("millimetres", in_units(1000, 1000), f"{SCALE} 0.001"),
    Mistake("centimetres", in_units(100, 100), f"{SCALE} 0.01"),
    Mistake("cloud alone in millimetres", in_units(1000, 1), f"{SCALE} 0.001,1"),
    Mistake("poses alone in millimetres", in_units(1, 1000), f"{SCALE} 1,0.001"),
    Mistake("cloud alone in centimetres", in_units(100, 1), f"{SCALE} 0.01,1"),
    Mistake("poses alone in feet", in_units(1, 1 / 0.3048), f"{SCALE} 1,0.3048"),
    Mistake("arbitrary units, of 20 m", in_units(0.05, 0.05), SCALE),
    Mistake("arbitrary units, of 10 cm", in_units(10, 10), SCALE),
    Mistake("K in shares of a frame", of_frames(1, 1), f"{SIZE} 1x1"),
    Mistake("K of frames twice as large", of_size(2, 2), SIZE),
    Mistake("K of frames half as large", of_size(0.5, 0.5), SIZE),
    Mistake("K of frames of 1920x1080", of_frames(1920, 1080), f"{SIZE} 1920x1080"),
    Mistake("K of upright frames", turned, ""),
    Mistake("K from the middle, -1 to 1", from_the_middle, ""),
)  # fmt: skip
