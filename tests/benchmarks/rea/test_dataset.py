"""The reader: what a sample holds, that only its own files are read, and every error of a file and of an entry."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stllm_edge.benchmarks.rea.dataset import by_clip
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.inputs.selection import select_frames


def test_a_sample_is_an_entry_without_placeholders(rea) -> None:
    sample = rea.open().samples[1]
    assert (sample.id, sample.question_type) == ("P01_11-1-find_my_item", "find_my_item")
    assert (sample.question, sample.answer) == ("Where did the person put the mug?", "On the table.")
    assert (sample.scene_id, sample.start, sample.stop) == ("P01_11", 1, 20)
    assert sample.pointcloud == rea.cloud("P01_11")
    assert sample.video == rea.frame("P01_11", 1).parent


def test_loading_reads_the_frames_and_poses_of_the_clip_only(rea) -> None:
    rea.pose("P01_11", 26).write_text("nan " * 16)
    rea.frame("P01_11", 26).unlink()
    first, second = (group[0] for group in by_clip(rea.open().samples)[:2])
    scene, clip = first.load()
    assert sorted(scene.poses) == [f"frame_{number:010d}" for number in (3, 11, 18)]
    assert list(clip.frames.files) == [f"frame_{number:010d}.jpg" for number in (3, 11, 18)]
    assert (clip.times, clip.size) == ((2 / 60, 10 / 60, 17 / 60), (128, 96))
    assert select_frames(clip, scene.poses, frames=3, default=3).indices == (0, 1, 2)
    assert len(scene.points) == len(np.load(rea.cloud("P01_11")))
    with pytest.raises(BadInput, match=r"frame_0000000026\.jpg: missing"):
        second.load()


def test_a_lost_pose_is_named_when_its_frame_is_asked_for(rea) -> None:
    rea.pose("P01_11", 11).write_text("nan " * 16)
    scene, clip = rea.open().samples[0].load()
    assert select_frames(clip, scene.poses, frames=2, default=2).indices == (0, 2)
    with pytest.raises(BadInput, match=r"2 of 3 frames .*frame_0000000011\.txt: holds NaN or infinity"):
        select_frames(clip, scene.poses, frames=3, default=3)


def test_times_count_from_the_start_of_the_clip(rea) -> None:
    scene, clip = rea.open().samples[2].load()
    seconds, times = select_frames(clip, scene.poses, frames=3, default=3).timing()
    assert (seconds, times) == (20 / 60, [0, 7 / 60, 15 / 60])


def test_frame_rates_are_told_or_recorded_or_those_of_epic_kitchens(rea) -> None:
    rea.entries[0]["metadata"]["fps"] = 6
    rea.write()
    rates = {sample.id: sample.fps for sample in rea.open().samples}
    assert rates[rea.entries[0]["id"]] == 6
    assert (rates["P01_11-11-find_my_item"], rates["P02_101-1-find_my_item"]) == (60, 50)
    assert {sample.fps for sample in rea.open(fps=12.5).samples} == {12.5}


def test_samples_of_one_clip_are_a_group(rea) -> None:
    groups = by_clip(reversed(rea.open().samples))
    assert [len(group) for group in groups] == [2, 2, 2, 2]
    assert [(group[0].scene_id, group[0].start) for group in groups[:2]] == [("P02_101", 11), ("P02_101", 1)]


def test_nothing_is_read_before_it_is_needed(rea) -> None:
    rea.cloud("P01_11").unlink()
    sample = rea.open().samples[0]
    with pytest.raises(BadInput, match=r"pointclouds/P01_11\.npy: no such file or folder"):
        sample.load()


def test_a_posed_frame_has_to_be_there_and_others_need_not(rea) -> None:
    rea.frame("P01_11", 11).unlink()
    with pytest.raises(BadInput, match=r"frame_0000000011\.jpg: missing; 1 of 3 frames with a pose are"):
        rea.open().samples[0].load()
    rea.pose("P01_11", 11).unlink()
    assert len(rea.open().samples[0].load()[1]) == 2


def test_frames_without_a_pose_belong_to_the_clip(rea) -> None:
    Image.new("RGB", (128, 96)).save(rea.frame("P01_11", 5))
    scene, clip = rea.open().samples[0].load()
    assert (clip.times, len(scene.poses)) == ((2 / 60, 4 / 60, 10 / 60, 17 / 60), 3)
    assert select_frames(clip, scene.poses, frames=3, default=3).indices == (0, 2, 3)


def test_a_clip_without_poses(rea) -> None:
    for number in (3, 11, 18):
        rea.pose("P01_11", number).unlink()
    with pytest.raises(BadInput, match=r"no poses among frame_0000000001\.\.frame_0000000020"):
        rea.open().samples[0].load()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entry: entry.pop("metadata"), r"lacks metadata\.dataset; give a JSON file of the REA release"),
        (lambda entry: entry["metadata"].update(dataset="ScanQA"), "belongs to data set 'ScanQA', expected 'REA'"),
        (lambda entry: entry["metadata"].update(question_type="color"), "question_type 'color'; known are relative_"),
        (lambda entry: entry["metadata"].update(query_stop_frame=0), r"frames 11\.\.0, expected"),
        (lambda entry: entry["metadata"].update(query_stop_frame="20"), "query_stop_frame '20', expected int"),
        (lambda entry: entry["metadata"].update(fps=0), r"metadata\.fps 0, expected a positive number"),
        (lambda entry: entry.pop("c2ws"), "lacks c2ws"),
        (lambda entry: entry["metadata"].update(query_stop_frame=10**12), "more than 1000000"),
        (lambda entry: entry.update(id=None), r"id None, expected str \| int"),
        (lambda entry: entry["conversations"].reverse(), r"conversations from \['gpt', 'human'\]"),
        (lambda entry: entry["conversations"].append("?"), r"conversations from \['human', 'gpt', None\]"),
        (lambda entry: entry["conversations"][0].update(value="<image>"), "no question beside the placeholders"),
    ],
)
def test_an_entry_that_is_not_rea_s_is_named(rea, change: Callable[[dict[str, Any]], object], words: str) -> None:
    change(rea.entries[3])
    rea.write()
    with pytest.raises(BadInput, match=rf"val\.json: entry 3 \(id .*\) .*{words}") as caught:
        rea.open()
    assert "\n" not in str(caught.value)


def test_doubled_ids_are_refused(rea) -> None:
    rea.entries[5]["id"], rea.entries[2]["id"] = 7, "7"
    rea.write()
    with pytest.raises(BadInput, match="entries 2 and 5 have the same id '7'"):
        rea.open()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nonsense", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"questions": []}', "expected a list of entries, found dict"),
        ("[]", "found an empty list"),
        ("[3]", "entry 0 lacks metadata.dataset"),
    ],
)
def test_a_file_of_something_else(rea, content: str, words: str) -> None:
    rea.file.write_text(content)
    with pytest.raises(BadInput, match=words):
        rea.open()


def test_files_and_options_that_cannot_be(rea) -> None:
    with pytest.raises(BadInput, match="--fps 0: expected a positive number"):
        rea.open(fps=0)
    rea.file.unlink()
    with pytest.raises(BadInput, match=r"--rea .*val\.json: cannot be read \(No such file"):
        rea.open()
    rea.root = rea.root / "nowhere"
    with pytest.raises(BadInput, match=r"--root .*nowhere: no such folder"):
        rea.open()
