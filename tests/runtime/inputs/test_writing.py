"""What is written is what is read: scenes and clips to folders and back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from stllm_edge.runtime import load_clip, load_scene
from stllm_edge.runtime.inputs.scene import Scene
from stllm_edge.runtime.inputs.writing import write_clip, write_frames, write_scene


def test_a_scene_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn * np.sign(np.linalg.det(turn)), generator.normal(size=3)
    points, colours = generator.normal(size=(9, 3)), generator.uniform(0, 255, (9, 3))
    intrinsics = np.array([[400 / 3, 0, 0.1], [0, 400 / 7, 0.2], [0, 0, 1]])
    scene = Scene(points.astype(np.float32), colours.astype(np.float32), {"b_1": pose, "a_2": np.eye(4)}, intrinsics)
    read = load_scene(write_scene(tmp_path / "new" / "scene", scene))
    assert np.array_equal(read.points, scene.points)
    assert np.array_equal(read.colours, scene.colours)
    assert np.array_equal(read.intrinsics, intrinsics)
    assert sorted(read.poses) == ["a_2", "b_1"]
    assert np.array_equal(read.poses["b_1"], pose)


def test_a_clip_comes_back_with_its_times(tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (3, 6, 8, 3), np.uint8)
    stems = ["frame_2", "frame_5", "frame_6"]
    clip = load_clip(write_clip(tmp_path / "new" / "video", zip(stems, frames, strict=True), fps=5.0, seconds=2.0))
    assert (clip.size, clip.timing()) == ((8, 6), (2.0, (0.4, 1.0, 1.2)))
    assert np.array_equal(list(clip.read(range(3))), frames)
    unknown = load_clip(write_clip(tmp_path / "other", zip(stems, frames, strict=True), fps=5.0, suffix=".jpg"))
    assert unknown.timing()[0] == 0.6
    assert sorted(file.name for file in (tmp_path / "other").glob("*.jpg")) == [f"{stem}.jpg" for stem in stems]


def test_frames_are_taken_one_at_a_time(tmp_path: Path) -> None:
    """A clip of thousands of frames is never in memory at once."""

    def frames() -> Iterator[tuple[str, np.ndarray]]:
        for number in range(3):
            assert len(list((tmp_path / "video").iterdir())) == number
            yield f"frame_{number}", np.zeros((2, 2, 3), np.uint8)

    (tmp_path / "video").mkdir()
    write_frames(tmp_path / "video", frames(), ".png")
    assert len(list((tmp_path / "video").iterdir())) == 3
