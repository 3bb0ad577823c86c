"""What a CameraInfo says of a lens."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, load_recording

from .bags import recorded
from .conftest import MATRIX, SIZE, Walk


def with_info(folder: Path, walk: Walk, topic: str = "/cam/image_raw", **info: Any) -> tuple[Any, Any]:
    with recorded(folder) as (robot, path):
        walk.map(robot)
        walk.tf(robot)
        robot.send("/cam/camera_info", robot.info(info.pop("size", SIZE), info.pop("matrix", MATRIX), **info), 0)
        for time, frame in zip(walk.times, walk.frames, strict=True):
            robot.send(topic, robot.image(time, frame), time)
    return load_recording(path)


def test_a_lens_that_bends_is_straightened(folder: Path, walk: Walk, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "stllm_edge"):
        _, clip = with_info(folder, walk, d=[-0.3, 0.1, 0, 0, 0])
    assert "bends by up to" in caplog.text
    assert not np.array_equal(next(clip.read([0])), walk.frames[0])


def test_rectified_images_have_the_projections_intrinsics(folder: Path, walk: Walk) -> None:
    projection = [40, 0, 30, 0, 0, 41, 24, 0, 0, 0, 1, 0]
    scene, clip = with_info(folder, walk, "/cam/image_rect_color", d=[-0.3, 0.1, 0, 0, 0], p=projection)
    assert scene.intrinsics.tolist() == [[40, 0, 30], [0, 41, 24], [0, 0, 1]]
    assert np.array_equal(next(clip.read([0])), walk.frames[0])


def test_intrinsics_of_all_pixels_of_a_sensor_are_brought_to_the_images(folder: Path, walk: Walk) -> None:
    matrix = [[100, 0, 62 + 8], [0, 104, 50 + 4], [0, 0, 1]]
    roi = {"x_offset": 8, "y_offset": 4, "width": 128, "height": 96}
    scene, _ = with_info(
        folder, walk, size=(160, 120), matrix=np.array(matrix, float), binning_x=2, binning_y=2, roi=roi
    )
    assert scene.intrinsics == pytest.approx(MATRIX)
    scene, _ = with_info(folder / "twice", walk, size=(128, 96), matrix=np.diag([2.0, 2, 1]) @ MATRIX)
    assert scene.intrinsics == pytest.approx(MATRIX)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"matrix": np.zeros((3, 3))}, "its K is zero, the camera was not calibrated; give --intrinsics FILE"),
        ({"distortion_model": "thin_prism", "d": np.ones(12)}, "its lens is thin_prism with 12 numbers"),
        ({"size": (64, 64)}, "belong to images of 64x64, the frames have 64x48"),
    ],
)
def test_lenses_that_are_refused(info: dict[str, Any], words: str, folder: Path, walk: Walk) -> None:
    with pytest.raises(BadInput, match=words):
        with_info(folder, walk, **info)
