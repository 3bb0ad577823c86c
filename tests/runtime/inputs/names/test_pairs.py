"""Which pose belongs to which frame."""

import logging

import pytest
from stllm_edge.runtime import load_clip
from stllm_edge.runtime.inputs.selection import select_frames


@pytest.mark.parametrize(
    ("frames", "poses"),
    [
        (["f_01", "f_04", "f_12"], ["f_1", "f_4", "f_12"]),
        (["000000_cam0", "000003_cam0", "000007_cam0"], ["0", "3", "7"]),
        (["frame-0.color", "frame-1.color"], ["frame-0.pose", "frame-1.pose"]),
        (["1502345678.301742", "1502345678.905764"], ["1502345678301742000", "1502345678905764000"]),
        (["f_1_a3f9c2", "f_2_0b1fc2"], ["f_1", "f_2"]),
    ],
)
def test_poses_are_those_of_the_same_number_or_time(tmp_path, frames, poses, write_frames, poses_for, caplog) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", *(f"{name}.png" for name in frames)))
    with caplog.at_level(logging.INFO, "stllm_edge"):
        selection = select_frames(clip, poses_for(*poses), frames=len(frames), default=1)
    assert selection.poses[:, 0, 3].tolist() == list(range(len(frames)))
    assert "poses such as" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_equal_names_win_over_numbers_that_say_otherwise(tmp_path, write_frames, poses_for) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", "a_1.png", "a_2.png", "a_3.png"))
    selection = select_frames(clip, poses_for("a_2", "x_1"), frames=1, default=1)
    assert selection.indices == (1,)


def test_what_is_left_without_a_partner_is_counted(tmp_path, write_frames, poses_for, caplog) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", "f_0.png", "f_1.png", "f_2.png"))
    select_frames(clip, poses_for("f_1", "f_2", "f_3"), frames=2, default=1)
    assert caplog.records[-1].levelname == "WARNING"
    assert "left out, 1 of 3 (f_0); poses without a frame, 1 of 3 (f_3)" in caplog.text


def test_a_clip_of_a_longer_recording_is_no_warning(tmp_path, write_frames, poses_for, caplog) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", "f_1.png", "f_2.png"))
    select_frames(clip, poses_for(*(f"f_{number}" for number in range(9))), frames=2, default=1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
