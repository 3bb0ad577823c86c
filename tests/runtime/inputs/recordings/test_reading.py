"""Bags of both ROS as scenes and clips."""

from pathlib import Path

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, load_recording
from stllm_edge.runtime.inputs.writing import write_matrix

from .bags import KINDS, Robot
from .conftest import MATRIX, Walk, same, written


@pytest.mark.parametrize("kind", KINDS)
def test_bags_of_both_ros(kind: str, folder: Path, walk: Walk) -> None:
    scene, clip = load_recording(written(folder, walk, lambda robot, walk: walk.all(robot), kind))
    same(walk, (scene, clip))
    assert clip.times == (0, 0.1, 0.2, 0.3)
    assert [clip.frames.name(place)[-7:] for place in (0, 3)] == [".000000", ".300000"]


@pytest.mark.parametrize("layout", ["rgb", "rgba", "packed", "r g b"])
def test_colours_of_every_layout(layout: str, folder: Path, walk: Walk) -> None:
    def write(robot: Robot, walk: Walk) -> None:
        walk.images(robot)
        walk.map(robot, layout)
        walk.tf(robot)

    same(walk, load_recording(written(folder, walk, write)))


# what is given beside a bag


def test_scene_and_intrinsics_in_place_of_the_recordings(folder: Path, walk: Walk, tmp_path: Path) -> None:
    def write(robot: Robot, walk: Walk) -> None:
        walk.tf(robot)
        for time, frame in zip(walk.times, walk.frames, strict=True):
            robot.send("/image", robot.image(time, frame), time)

    path = written(folder, walk, write)
    np.save(tmp_path / "cloud.npy", np.hstack([walk.points, walk.colours]).astype(np.float32))
    write_matrix(tmp_path / "K.txt", MATRIX)
    same(walk, load_recording(path, scene=tmp_path / "cloud.npy", intrinsics=tmp_path / "K.txt"))
    with pytest.raises(BadInput, match="holds no CameraInfo for /image; give --intrinsics FILE"):
        load_recording(path, scene=tmp_path / "cloud.npy")
    with pytest.raises(BadInput, match="holds no PointCloud2; record a topic of coloured PointCloud2, or give --scene"):
        load_recording(path, intrinsics=tmp_path / "K.txt")
