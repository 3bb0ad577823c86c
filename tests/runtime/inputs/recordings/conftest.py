"""A walk of four frames through a small room of coloured points, to be written as a recording."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .bags import Robot, recorded

SIZE = (64, 48)
MATRIX = np.array([[50.0, 0, 31], [0, 52, 25], [0, 0, 1]])
# of the camera on the robot: z forward along the body's x
MOUNT = np.array([[0.0, 0, 1, 0.1], [-1, 0, 0, 0], [0, -1, 0, 0.3], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Walk:
    """Points [P, 3] float32, colours [P, 3] uint8, frames [H, W, 3], and the camera's poses [4, 4] at their times."""

    points: np.ndarray
    colours: np.ndarray
    frames: tuple[np.ndarray, ...]
    poses: tuple[np.ndarray, ...]
    times: tuple[float, ...]

    def body(self, place: int) -> np.ndarray:
        """Pose of the robot's body."""
        return self.poses[place] @ np.linalg.inv(MOUNT)

    def images(self, robot: Robot, **options: Any) -> None:
        """Send the images and what the camera is like."""
        robot.send("/cam/camera_info", robot.info(SIZE, MATRIX), 0)
        for time, frame in zip(self.times, self.frames, strict=True):
            robot.send("/cam/image_raw", robot.image(time, frame, **options), time)

    def map(self, robot: Robot, layout: str = "rgb") -> None:
        """Send the cloud."""
        robot.send("/cloud", robot.cloud(0, self.points, self.colours, "map", layout), 0)

    def tf(self, robot: Robot, child: str = "eye") -> None:
        """Send where the camera is."""
        for time, pose in zip(self.times, self.poses, strict=True):
            robot.send("/tf", robot.tf(robot.transform(time, "map", child, pose)), time)

    def all(self, robot: Robot) -> None:
        """Send everything."""
        self.images(robot)
        self.map(robot)
        self.tf(robot)


Write = Callable[[Robot, Walk], Any]


def written(folder: Path, walk: Walk, write: Write, kind: str = "mcap") -> Path:
    with recorded(folder, kind) as (robot, path):
        write(robot, walk)
    return path


def same(walk: Walk, read: tuple[Any, Any], places: tuple[int, ...] = (0, 1, 2, 3)) -> None:
    """Points, colours, intrinsics, poses and frames are those of the walk."""
    scene, clip = read
    assert np.array_equal(scene.points, walk.points)
    assert np.array_equal(scene.colours, walk.colours)
    assert np.array_equal(scene.intrinsics, MATRIX)
    posed = clip.frames.posed({})
    assert list(posed) == list(range(len(places)))
    for found, place in zip(posed.values(), places, strict=True):
        assert found == pytest.approx(walk.poses[place], abs=1e-9)
    for frame, place in zip(clip.read(range(len(clip))), places, strict=True):
        assert np.array_equal(frame, walk.frames[place])
    contents = list(clip.contents(range(len(clip))))
    assert all(np.array_equal(one.pixels(), walk.frames[place]) for one, place in zip(contents, places, strict=True))


def by_stamped_poses(robot: Robot, walk: Walk) -> None:
    walk.images(robot)
    walk.map(robot)
    for time, pose in zip(walk.times, walk.poses, strict=True):
        robot.send("/pose", robot.stamped(time, "map", pose), time)


@pytest.fixture(scope="session")
def walk() -> Walk:
    draw = np.random.default_rng(3)
    poses = []
    for place in range(4):
        turn = 0.2 * place
        pose = np.eye(4) if place else MOUNT.copy()
        cosine, sine = np.cos(turn), np.sin(turn)
        around = np.array(
            [[cosine, -sine, 0, 0.3 * place], [sine, cosine, 0, -0.1 * place], [0, 0, 1, 0], [0, 0, 0, 1]]
        )
        pose = around @ MOUNT
        poses.append(pose)
    points = draw.uniform(-2, 2, (500, 3)).astype(np.float32) + np.float32([3, 0, 0])
    frames = tuple(draw.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8) for _ in range(4))
    return Walk(points, draw.integers(0, 256, (500, 3), np.uint8), frames, tuple(poses), (0.0, 0.1, 0.2, 0.3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "recording"
