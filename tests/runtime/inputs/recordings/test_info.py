"""What bag-info says of a bag, and that the command it prints works."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.runtime.inputs.recordings.info import survey

from .bags import recorded
from .conftest import Walk


def test_a_whole_recording(folder: Path, walk: Walk, stllm: Any) -> None:
    with recorded(folder) as (robot, path):
        walk.all(robot)
    done = stllm("run", "bag-info", path)
    assert done.exit_code == 0, done.output
    assert "4 topics" in done.stdout
    assert "/cam/image_raw    sensor_msgs/msg/Image              4     10.00 a second" in done.stdout
    found = json.loads(stllm("run", "bag-info", path, "--json").stdout)
    assert found["missing"] == []
    assert found["seconds"] == pytest.approx(0.3)
    assert {topic["name"]: topic["count"] for topic in found["topics"]} == {
        "/cam/camera_info": 1,
        "/cam/image_raw": 4,
        "/cloud": 1,
        "/tf": 4,
    }
    words = shlex.split(found["command"])
    assert words[0] == "stllm-run"
    asked = stllm("run", "check", *words[words.index("--bag") : words.index("-q")])
    assert "500 points over" in asked.stdout, asked.output


def test_of_several_topics_those_that_fit_together_are_named(folder: Path, walk: Walk, stllm: Any) -> None:
    with recorded(folder) as (robot, path):
        walk.all(robot)
        robot.send("/lost/image_raw", robot.image(0, walk.frames[0], at="nowhere"), 0)
        robot.send("/elsewhere", robot.cloud(0, walk.points, walk.colours, "elsewhere"), 0)
    found = survey(path)
    assert found.missing == ()
    assert "--image-topic /cam/image_raw --cloud-topic /cloud --pose-topic /tf" in found.command


def test_what_is_missing_is_said(folder: Path, walk: Walk, stllm: Any) -> None:
    with recorded(folder) as (robot, path):
        walk.tf(robot)
        robot.send("/image", robot.image(0, walk.frames[0]), 0)
    done = stllm("run", "bag-info", path)
    assert done.exit_code == 1
    assert done.stdout.count("missing: ") == 2
    assert "holds no PointCloud2" in done.stdout
    assert "holds no CameraInfo for /image" in done.stdout
    assert "--scene FILE --intrinsics FILE --image-topic /image --pose-topic /tf" in done.stdout


def test_a_cloud_without_colours_is_missing(folder: Path, walk: Walk) -> None:
    with recorded(folder) as (robot, path):
        walk.images(robot)
        walk.tf(robot)
        robot.send("/lidar", robot.cloud(0, walk.points, None, "map", "intensity"), 0)
    found = survey(path)
    assert "no colours, only intensity" in found.missing[0]
    assert "give --scene FILE, a coloured cloud in map" in found.missing[0]


def test_no_poses_and_nothing_at_all(folder: Path, walk: Walk) -> None:
    with recorded(folder) as (robot, path):
        walk.images(robot)
        walk.map(robot)
    assert "says alone where eye is" in survey(path).missing[0]
    with recorded(folder / "empty") as (robot, path):
        robot.send("/imu", robot.stamped(0, "map", np.eye(4)), 0)
    assert "holds no images" in survey(path).missing[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bag", "x.mcap", "--video", "clip"], "--bag and --video are both given; the recording says that itself"),
        (["--bag", "x.mcap", "--fps", "3"], "--bag and --fps are both given"),
        (["--bag", "x.mcap"], "bag x.mcap: no such file or folder"),
        (["--image-topic", "/a"], "options of a recording are given without one; give --bag with them"),
        (["--scene", "room"], "--scene and --video go together; give both, or --bag"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], words: str, stllm: Any) -> None:
    done = stllm("run", "check", *options)
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
