"""Sources of poses, and whose axes they have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, BagChoices, load_recording

from .bags import Robot, recorded
from .conftest import MATRIX, MOUNT, SIZE, Walk, Write, by_stamped_poses, same, written


def by_odometry(robot: Robot, walk: Walk) -> None:
    walk.images(robot)
    walk.map(robot)
    robot.send("/tf_static", robot.tf(robot.transform(0, "base", "eye", MOUNT)), 0)
    for place, time in enumerate(walk.times):
        robot.send("/odom", robot.odometry(time, "map", "base", walk.body(place)), time)


def by_chain(robot: Robot, walk: Walk) -> None:
    """ROS 1's stroke before names; the map moves against odometry."""
    walk.images(robot)
    walk.map(robot)
    robot.send("/tf_static", robot.tf(robot.transform(0, "/base", "/eye", MOUNT)), 0)
    for place, time in enumerate(walk.times):
        drift = np.eye(4)
        drift[:3, 3] = [place, -1, 0.5]
        moved = np.linalg.inv(drift) @ walk.body(place)
        robot.send("/tf", robot.tf(robot.transform(time, "map", "odom", drift)), time)
        robot.send("/tf", robot.tf(robot.transform(time, "/odom", "/base", moved)), time)


def by_path(robot: Robot, walk: Walk) -> None:
    walk.images(robot)
    walk.map(robot)
    known: dict[float, np.ndarray] = {}
    for time, pose in zip(walk.times, walk.poses, strict=True):
        known[time] = pose
        robot.send("/path", robot.path(time, "map", known), time)


def of_the_body(robot: Robot, walk: Walk) -> None:
    """Poses without a child frame that are those of the body."""
    walk.images(robot)
    walk.map(robot)
    robot.send("/tf_static", robot.tf(robot.transform(0, "base", "eye", MOUNT)), 0)
    for place, time in enumerate(walk.times):
        robot.send("/pose", robot.stamped(time, "map", walk.body(place)), time)


SOURCES: dict[str, tuple[Write, BagChoices]] = {
    "odometry and a static transform": (by_odometry, BagChoices()),
    "a chain of transforms": (by_chain, BagChoices()),
    "stamped poses": (by_stamped_poses, BagChoices()),
    "a path": (by_path, BagChoices()),
    "poses of the body": (of_the_body, BagChoices(pose_frame="base")),
}


@pytest.mark.parametrize("kind", ["bag", "mcap"])
@pytest.mark.parametrize("name", SOURCES)
def test_sources_of_poses(name: str, kind: str, folder: Path, walk: Walk) -> None:
    write, choices = SOURCES[name]
    same(walk, load_recording(written(folder, walk, write, kind), choices))


def test_poses_are_interpolated_and_frames_outside_are_counted(folder: Path, walk: Walk, caplog: Any) -> None:
    def write(robot: Robot, walk: Walk) -> None:
        walk.images(robot)
        walk.map(robot)
        for place in (0, 2):
            time = walk.times[place]
            robot.send("/tf", robot.tf(robot.transform(time, "map", "eye", walk.poses[place])), time)

    scene, clip = load_recording(written(folder, walk, write))
    found = clip.frames.posed(scene.poses)
    assert list(found) == [0, 1, 2]
    # the walk turns by 0.2 radians a frame, which is half of 0.4
    assert found[1][:3, :3] == pytest.approx(walk.poses[1][:3, :3], abs=1e-9)
    assert "1 of 4 images have no pose" in caplog.text
    assert "known from 1700000000.000 to 1700000000.200 s (± 0.02 s" in caplog.text


def test_a_part_of_a_recording(folder: Path, walk: Walk) -> None:
    path = written(folder, walk, lambda robot, walk: walk.all(robot))
    _, clip = load_recording(path, BagChoices(begin=0.1, end=0.2))
    assert clip.times == (0, pytest.approx(0.1))
    assert np.array_equal(next(clip.read([1])), walk.frames[2])
    with pytest.raises(BadInput, match=r"no image in the time asked for \(--from, --to\); it takes 0.3 s"):
        load_recording(path, BagChoices(begin=7))


def test_images_out_of_order_twice_or_without_stamps(folder: Path, walk: Walk, caplog: Any) -> None:
    def shuffled(robot: Robot, walk: Walk) -> None:
        walk.map(robot)
        walk.tf(robot)
        robot.send("/cam/camera_info", robot.info(SIZE, MATRIX), 0)
        for received, place in enumerate((1, 0, 3, 2, 2)):
            message = robot.image(walk.times[place], walk.frames[place])
            robot.send("/cam/image_raw", message, received / 10)

    same(walk, load_recording(written(folder, walk, shuffled)))
    assert "1 images of /cam/image_raw have the stamp of another" in caplog.text

    def unstamped(robot: Robot, walk: Walk) -> None:
        walk.all(robot)

    with recorded(folder / "unset") as (robot, path):
        walk.map(robot)
        walk.tf(robot)
        robot.send("/cam/camera_info", robot.info(SIZE, MATRIX), 0)
        for time, frame in zip(walk.times, walk.frames, strict=True):
            message = robot.image(time, frame)
            message.header.stamp.sec = message.header.stamp.nanosec = 0
            robot.send("/cam/image_raw", message, time)
    _, clip = load_recording(path)
    assert "have no stamps" in caplog.text
    assert clip.times == pytest.approx((0, 0.1, 0.2, 0.3))


def test_an_optical_frame_below_that_of_the_images_is_taken(folder: Path, walk: Walk, caplog: Any) -> None:
    def write(robot: Robot, walk: Walk) -> None:
        walk.images(robot, at="camera_link")
        walk.map(robot)
        robot.send("/tf_static", robot.tf(robot.transform(0, "camera_link", "camera_optical_frame", MOUNT)), 0)
        for place, time in enumerate(walk.times):
            robot.send("/tf", robot.tf(robot.transform(time, "map", "camera_link", walk.body(place))), time)

    path = written(folder, walk, write)
    same(walk, load_recording(path))
    assert "has an optical frame below it, camera_optical_frame; it is taken (--camera-frame)" in caplog.text
    with pytest.raises(
        BadInput,
        match="TF does not say where nose is; give --camera-frame, one of camera_link, camera_optical_frame, map",
    ):
        load_recording(path, BagChoices(camera_frame="nose"))


def test_axes_of_a_body_are_turned_where_it_is_said(folder: Path, walk: Walk) -> None:
    turn = MOUNT.copy()
    turn[:3, 3] = 0

    def write(robot: Robot, walk: Walk) -> None:
        walk.images(robot)
        walk.map(robot)
        for time, pose in zip(walk.times, walk.poses, strict=True):
            body = pose @ np.linalg.inv(turn)
            robot.send("/tf", robot.tf(robot.transform(time, "map", "eye", body)), time)

    same(walk, load_recording(written(folder, walk, write), pose_convention="c2w-body"))
