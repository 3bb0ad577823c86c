"""Depth frames become the cloud that they are pictures of."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import BadInput, Scene, load_clip, load_scene
from stllm_edge.runtime.inputs.writing import write_frames, write_matrix, write_poses

STEMS = ("f_1", "f_2", "f_3")
K = np.array([[40.0, 0, 20], [0, 40.0, 15], [0, 0, 1]])


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A wall two metres before three cameras that move along it, half red and half green; frames of 40x30."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, :20, 0], pixels[:, 20:, 1] = 200, 100
    write_frames(tmp_path / "video", ((stem, pixels) for stem in STEMS), ".png")
    poses = {stem: np.eye(4) for stem in STEMS}
    for place, pose in enumerate(poses.values()):
        pose[:3, 3] = (3 * place, 10, -1)
    write_poses(tmp_path / "poses", poses)
    write_matrix(tmp_path / "K.txt", K)
    write_depth(tmp_path, np.full((30, 40), 2000, np.uint16), *STEMS)
    return tmp_path


def write_depth(folder: Path, values: np.ndarray, *stems: str) -> None:
    (folder / "depth").mkdir(exist_ok=True)
    for stem in stems:
        Image.fromarray(values).save(folder / "depth" / f"{stem}.png")


def load(folder: Path, **options: float) -> Scene:
    return load_scene(folder, clip=load_clip(folder / "video"), **options)


def test_a_wall(recording: Path) -> None:
    scene = load(recording)
    assert np.allclose(scene.points[:, 2], 1)
    assert len(scene.points) == 3 * 30 * 40
    x = (np.arange(40) - 19.5) / 40 * 2
    assert np.allclose(np.unique(scene.points[: 30 * 40, 0].round(4)), x.round(4))
    assert np.allclose(scene.points[:, 1].min(), 10 - 14.5 / 20)
    first = scene.points[: 30 * 40, 0] < 0
    assert (scene.colours[: 30 * 40][first] == [200, 0, 0]).all()
    assert (scene.colours[: 30 * 40][~first] == [0, 100, 0]).all()


@pytest.mark.parametrize("scale", [5000, 1000])
def test_numbers_a_metre(recording: Path, scale: float) -> None:
    assert np.allclose(load(recording, depth_scale=scale).points[:, 2], 2000 / scale - 1)
    with pytest.raises(BadInput, match="--depth-scale 0"):
        load(recording, depth_scale=0)


@pytest.mark.parametrize("factor", [2, 5])
def test_depth_of_another_size(recording: Path, factor: int) -> None:
    """Of smaller frames, each pixel is where the pixels that it stands for are on average."""
    write_depth(recording, np.full((30 // factor, 40 // factor), 2000, np.uint16), *STEMS)
    scene = load(recording)
    x = (np.arange(40).reshape(-1, factor).mean(axis=1) - 19.5) / 20
    assert np.allclose(np.unique(scene.points[: 1200 // factor**2, 0].round(4)), x.round(4))


@pytest.mark.parametrize("none", [0, 65535])
def test_pixels_without_depth(recording: Path, none: int) -> None:
    values = np.full((30, 40), 2000, np.uint16)
    values[:, :10] = none
    write_depth(recording, values, *STEMS)
    assert len(load(recording).points) == 3 * 30 * 30


def test_one_point_in_a_cell(recording: Path) -> None:
    write_poses(recording / "poses", {stem: np.eye(4) for stem in STEMS})
    assert len(load(recording).points) == 30 * 40


def test_map_coordinates(recording: Path) -> None:
    here = load(recording)
    poses = {stem: np.eye(4) for stem in STEMS}
    for place, pose in enumerate(poses.values()):
        pose[:3, 3] = (530_000 + 3 * place, 180_010, -1)
    write_poses(recording / "poses", poses)
    there = load(recording)
    assert np.abs(there.points + there.offset - here.points - [530_000, 180_000, 0]).max() < 1e-4


def test_frames_without_a_pose_or_a_frame_are_counted(recording: Path, caplog) -> None:
    (recording / "poses" / "f_2.txt").unlink()
    write_depth(recording, np.full((30, 40), 2000, np.uint16), "f_9")
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        assert len(load(recording).points) == 2 * 30 * 40
    assert "2 of 4 depth frames have both a frame and a pose" in caplog.text


@pytest.mark.parametrize("values", [np.zeros((30, 40), np.uint8), np.zeros((30, 40, 3), np.uint8)])
def test_pictures_are_no_depth(recording: Path, values: np.ndarray) -> None:
    write_depth(recording, values, *STEMS)
    with pytest.raises(BadInput, match=r"depth frame .*f_1\.png: expected one channel of 16 bits"):
        load(recording)


def test_a_clip_is_needed(recording: Path) -> None:
    with pytest.raises(BadInput, match="give load_scene the clip"):
        load_scene(recording)
    for file in (recording / "depth").iterdir():
        file.unlink()
    with pytest.raises(BadInput, match=r"holds no \.png"):
        load(recording)


def test_a_frame_that_claims_more_than_it_holds(recording: Path) -> None:
    (recording / "depth/f_1.png").write_bytes(b"P5 9000 9000 65535\n" + bytes(100))
    with pytest.raises(BadInput, match=r"depth frame .*f_1.png: unreadable \(it claims 9000x9000 pixels in 119 bytes"):
        load(recording)


def test_infinite_depths_are_none_and_endless_ones_are_counted(recording: Path, caplog) -> None:
    values = np.full((30, 40), 2, np.float32)
    values[0, 0], values[0, 1] = 3e38, np.inf
    Image.fromarray(values).save(recording / "depth/f_1.tiff")
    (recording / "depth/f_1.png").unlink()
    assert len(load(recording).points) == 3 * 30 * 40 - 2
    assert "1 of 3599 points have coordinates that are NaN or infinite" in caplog.text


def test_damaged_depth_frames_are_read_or_refused(recording: Path, tmp_path_factory, survives_damage) -> None:
    originals = tmp_path_factory.mktemp("originals")
    values = np.full((30, 40), 2, np.float32)
    for suffix, stored in ((".png", (values * 1000).astype(np.uint16)), (".tiff", values)):
        folder = originals / suffix[1:]
        for name in ("poses/f_1.txt", "video/f_1.png", "K.txt"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(recording / name, folder / name)
        (folder / "depth").mkdir()
        Image.fromarray(stored).save(folder / "depth" / f"f_1{suffix}")
    survives_damage("depth", originals, 25)
