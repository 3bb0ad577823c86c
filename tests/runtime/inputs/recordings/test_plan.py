"""What is missing in a bag, or there more than once."""

from pathlib import Path

import pytest
from stllm_edge.runtime import BadInput, BagChoices, load_recording

from .bags import Robot
from .conftest import Walk, Write, by_stamped_poses, same, written


def without(part: str) -> Write:
    def write(robot: Robot, walk: Walk) -> None:
        for name in ("images", "map", "tf"):
            if name != part:
                getattr(walk, name)(robot)

    return write


def two_of(topic: str) -> Write:
    def write(robot: Robot, walk: Walk) -> None:
        walk.all(robot)
        if topic == "image":
            robot.send("/rear/image_raw", robot.image(0, walk.frames[0]), 0)
        else:
            robot.send("/more", robot.cloud(0, walk.points, walk.colours, "map"), 0)

    return write


def in_other_clocks(robot: Robot, walk: Walk) -> None:
    walk.images(robot)
    walk.map(robot)
    for time in (100, 101):
        robot.send("/tf", robot.tf(robot.transform(time, "map", "eye", walk.poses[0])), time)


def in_other_frames(robot: Robot, walk: Walk) -> None:
    walk.images(robot)
    walk.tf(robot)
    robot.send("/cloud", robot.cloud(0, walk.points, walk.colours, "world"), 0)


def without_colours(robot: Robot, walk: Walk) -> None:
    walk.images(robot)
    walk.tf(robot)
    robot.send("/cloud", robot.cloud(0, walk.points, None, "map", "intensity"), 0)


def two_poses(robot: Robot, walk: Walk) -> None:
    by_stamped_poses(robot, walk)
    robot.send("/other", robot.stamped(0, "map", walk.poses[0]), 0)


def depth_in_place_of_a_cloud(robot: Robot, walk: Walk) -> None:
    walk.images(robot)
    walk.tf(robot)
    robot.send("/depth", robot.image(0, walk.frames[0][..., 0], "16UC1"), 0)


REFUSED: dict[str, tuple[Write, BagChoices, str]] = {
    "no images": (without("images"), BagChoices(), "holds no images; record the camera's image topic"),
    "no cloud": (without("map"), BagChoices(), "holds no PointCloud2"),
    "no poses": (without("tf"), BagChoices(), "nothing of TFMessage, Odometry, .* says alone where eye is"),
    "two cameras": (
        two_of("image"),
        BagChoices(),
        r"holds 2 topics of images; give --image-topic, one of /cam/image_raw \(4 Image\), /rear/image_raw \(1 Image\)",
    ),
    "two clouds": (two_of("cloud"), BagChoices(), "2 topics of PointCloud2; give --cloud-topic, one of /cloud"),
    "two poses": (two_poses, BagChoices(), r"give --pose-topic, one of /pose \(4 PoseStamped\), /other"),
    "no such topic": (
        without(""),
        BagChoices(image_topic="/nose"),
        r"--image-topic /nose: bag .* has no such topic; of Image or CompressedImage it has /cam/image_raw",
    ),
    "of another type": (without(""), BagChoices(cloud_topic="/tf"), "--cloud-topic /tf: holds TFMessage, expected Poi"),
    "other clocks": (in_other_clocks, BagChoices(), "4 of 4 images have no pose: .*; are their clocks the same"),
    "no transform": (in_other_frames, BagChoices(), "no transform connects world with map; its frames are eye, map"),
    "depth alone": (
        depth_in_place_of_a_cloud,
        BagChoices(),
        r"no PointCloud2; depth images \(/depth \(1 Image\)\) are not made into one, .*; record a topic of coloured",
    ),
    "intensity only": (without_colours, BagChoices(), "no colours, only intensity, which the model does not take"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, folder: Path, walk: Walk) -> None:
    write, choices, words = REFUSED[name]
    with pytest.raises(BadInput, match=words) as caught:
        load_recording(written(folder, walk, write), choices)
    assert "\n" not in str(caught.value)


def test_of_two_clouds_the_one_with_colours_is_taken(folder: Path, walk: Walk) -> None:
    def write(robot: Robot, walk: Walk) -> None:
        walk.all(robot)
        robot.send("/lidar", robot.cloud(0, walk.points[:9], None, "map", "intensity"), 0)

    same(walk, load_recording(written(folder, walk, write)))


def test_raw_images_come_before_the_same_compressed_and_depth_is_none(folder: Path, walk: Walk) -> None:
    def write(robot: Robot, walk: Walk) -> None:
        walk.all(robot)
        robot.send("/cam/image_raw/compressed", robot.compressed(0, b"x"), 0)
        robot.send("/depth", robot.image(0, walk.frames[0][..., 0], "16UC1"), 0)

    same(walk, load_recording(written(folder, walk, write)))
