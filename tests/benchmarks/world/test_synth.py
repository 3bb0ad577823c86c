"""The small world on disk: REA's layout, the same bytes every time, splits without a common room, refusals."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stllm_edge.benchmarks.world import synth
from stllm_edge.benchmarks.world.synth import Recipe, write_synth
from stllm_edge.runtime import load_clip, load_scene

TYPES = {
    "relative_direction": 36,
    "relative_distance": 36,
    "find_my_item": 12,
    "furniture_affordance": 12,
    "action_planning": 36,
}


def test_entries_are_as_rea_has_them(world: Any) -> None:
    entries = world.entries()
    assert len({entry["id"] for entry in entries}) == len(entries)
    counts = Counter(entry["metadata"]["question_type"] for entry in entries)
    assert all(0.8 * most <= counts[name] <= most for name, most in TYPES.items()), counts
    for entry in entries:
        assert set(entry) == {"id", "video", "pointcloud", "c2ws", "K", "conversations", "metadata", "scene_id"}
        assert [turn["from"] for turn in entry["conversations"]] == ["human", "gpt"]
        assert entry["conversations"][0]["value"].startswith("<pointcloud><image>")
        assert (entry["metadata"]["dataset"], entry["metadata"]["fps"]) == ("REA", 6)
        first, last = entry["metadata"]["query_start_frame"], entry["metadata"]["query_stop_frame"]
        assert (first, last) in {(1, 12), (13, 24)}
    assert entries[0]["video"] == "train/P01/P01_01"
    assert {entry["video"].split("/")[0] for entry in world.entries("val")} == {"test"}


def test_runtime_reads_what_is_written(world: Any) -> None:
    for entry in {entry["scene_id"]: entry for entry in world.entries()}.values():
        folder = world.folder
        scene = load_scene(folder / entry["pointcloud"], poses=folder / entry["c2ws"], intrinsics=folder / entry["K"])
        clip = load_clip(folder / entry["video"], fps=6, first_frame=1)
        assert len(clip) == len(scene.poses) == 24
        assert {file.removesuffix(".jpg") for file in clip.frames.files} == set(scene.poses)
        assert clip.frames.files[0] == "frame_0000000001.jpg"
        assert clip.size == (96, 72)
        assert 30_000 < len(scene.points) < 90_000
        assert np.isclose(2 * np.arctan(48 / scene.intrinsics[0, 0]), np.deg2rad(80))
    assert Image.open(world.folder / "train/P01/P01_01/frame_0000000012.jpg").mode == "RGB"


def test_splits_have_no_room_in_common(world: Any) -> None:
    def digests(split: str) -> set[str]:
        scenes = {entry["scene_id"] for entry in world.entries(split)}
        rooms = [json.dumps(world.sidecar(scene)["furniture"]) for scene in scenes]
        clouds = [(world.folder / f"pointclouds/{scene}.ply").read_bytes().hex() for scene in scenes]
        return {hashlib.sha256(text.encode()).hexdigest() for text in rooms + clouds}

    assert (len(digests("train")), len(digests("val"))) == (8, 4)
    assert not digests("train") & digests("val")


@pytest.mark.slow
def test_processes_do_not_change_a_byte(world: Any, tmp_path: Path) -> None:
    write_synth(tmp_path / "again", Recipe(6, 3, val_share=0.34), processes=2)
    assert digests_below(tmp_path / "again") == digests_below(world.folder)


def digests_below(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_command_says_what_it_wrote(stllm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    options = ["--scenes", 1, "--clips", 1, "--questions", 1, "--processes", 1]
    result = stllm("bench", "rea", "synth", "--out", ".", *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == (
        "5 questions for training, 0 for validation: 1 action_planning, 1 find_my_item, 1 furniture_affordance, "
        "1 relative_direction, 1 relative_distance\n"
    )
    assert "rooms: 1, the last 0 for validation; processes: 1" in result.stderr
    assert json.loads((tmp_path / "one/val.json").read_text()) == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--scenes", 0, "--scenes 0: expected at least 1"),
        ("--seed", -1, "--seed -1: expected at least 0"),
        ("--clips", 0, "--clips 0: expected at least 1"),
        ("--questions", 0, "--questions 0: expected at least 1"),
        ("--processes", 0, "--processes 0: expected at least 1"),
        ("--val-share", 1.5, "--val-share 1.5: expected a share from 0 to 1"),
    ],
)
def test_numbers_out_of_range(stllm: Any, tmp_path: Path, option: str, value: float, message: str) -> None:
    result = stllm("bench", "rea", "synth", "--out", tmp_path / "new", "--scenes", 2, option, value)
    assert (result.exit_code, result.stderr) == (2, f"stllm-bench rea synth: {message}\n")
    assert not any(tmp_path.iterdir())


def test_folder_that_holds_something_is_left_alone(stllm: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = stllm("bench", "rea", "synth", "--out", tmp_path, "--scenes", 1)
    message = f"--out {tmp_path}: exists and is not an empty folder; name a new one"
    assert (result.exit_code, result.stderr) == (2, f"stllm-bench rea synth: {message}\n")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_folder_that_cannot_be_written(stllm: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = stllm("bench", "rea", "synth", "--out", tmp_path / "file/new", "--scenes", 1, "--processes", 1, "--quiet")
    assert result.exit_code == 2
    assert "file/new: cannot be written" in result.stderr
    assert result.stderr.count("\n") == 1


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synth, "sidecar", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_synth(tmp_path / "world", Recipe(1, 0), processes=1)
    assert not any(tmp_path.iterdir())
