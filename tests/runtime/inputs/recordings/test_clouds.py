"""Clouds of every layout, and many in one."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, BagChoices, load_recording

from .bags import Robot
from .conftest import Walk, same, written


def scans(robot: Robot, walk: Walk) -> None:
    """A quarter of the cloud with each image, from the camera."""
    walk.images(robot)
    walk.tf(robot)
    for place, time in enumerate(walk.times):
        part = slice(125 * place, 125 * place + 125)
        inverse = np.linalg.inv(walk.poses[place])
        seen = walk.points[part] @ inverse[:3, :3].T + inverse[:3, 3]
        robot.send("/scan", robot.cloud(time, seen, walk.colours[part], "eye"), time)


def test_scans_are_brought_together_in_the_map(folder: Path, walk: Walk) -> None:
    path = written(folder, walk, scans)
    scene, _ = load_recording(path)
    assert len(scene.points) == pytest.approx(500, abs=2)
    assert scene.points[0] == pytest.approx(walk.points[0], abs=1e-5)
    assert np.array_equal(scene.colours[0], walk.colours[0])
    for which, first in (("first", 0), ("last", 375), ("2", 250)):
        scene, _ = load_recording(path, BagChoices(clouds=which))
        assert scene.points[0] == pytest.approx(walk.points[first], abs=1e-5)
    with pytest.raises(BadInput, match="--clouds 4: expected auto, all, first, last, or a place from 0 to 3"):
        load_recording(path, BagChoices(clouds="4"))


def test_of_a_map_that_grows_the_last_is_taken(folder: Path, walk: Walk, caplog: Any) -> None:
    def write(robot: Robot, walk: Walk) -> None:
        walk.images(robot)
        walk.tf(robot)
        for count, time in zip((100, 300, 400, 500), walk.times, strict=True):
            robot.send("/cloud", robot.cloud(time, walk.points[:count], walk.colours[:count], "map"), time)

    with caplog.at_level(logging.INFO, "stllm_edge"):
        same(walk, load_recording(written(folder, walk, write)))
    assert "the last of 4 clouds is taken" in caplog.text


def test_points_that_are_nan_are_counted(folder: Path, walk: Walk, caplog: Any) -> None:
    def write(robot: Robot, walk: Walk, share: int = 5) -> None:
        points = walk.points.copy()
        points[np.arange(len(points)) % share > 0 if share > 10 else np.arange(len(points)) % share == 0] = np.nan
        walk.images(robot)
        walk.tf(robot)
        for time in walk.times[:2]:
            robot.send("/cloud", robot.cloud(time, points, walk.colours, "eye"), time)

    load_recording(written(folder, walk, write))
    assert "200 of 1000 points have coordinates or colours that are no numbers, and are left out" in caplog.text
    with pytest.raises(BadInput, match="over 90%"):
        load_recording(written(folder / "few", walk, lambda robot, walk: write(robot, walk, 20)))
