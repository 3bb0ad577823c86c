"""Which frames are chosen, with which poses and times."""

import logging

import numpy as np
import pytest
from stllm_edge.runtime import BadInput, load_clip, load_scene
from stllm_edge.runtime.inputs.selection import select_frames

STEMS = ("frame_0000000003", "frame_0000000005", "frame_0000000009")


def test_poses_are_matched_by_stem(inputs, poses_for) -> None:
    poses = poses_for("frame_0000000009", "frame_0000000005", "frame_0000000004", "other")
    selection = select_frames(load_clip(inputs.video), poses, frames=None, default=2)
    assert selection.indices == (1, 2)
    assert selection.poses[:, 0, 3].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("posed", "count", "chosen"),
    [
        (10, 1, [0]),
        (10, 2, [0, 9]),
        (10, 4, [0, 3, 6, 9]),
        (10, 7, [0, 1, 3, 4, 6, 7, 9]),
        (10, 10, list(range(10))),
        (2, 5, [0, 0, 0, 0, 1]),
        (1, 3, [0, 0, 0]),
    ],
)
def test_frames_are_sampled_evenly_and_rounded_down(
    tmp_path, posed: int, count: int, chosen: list[int], write_frames, poses_for
) -> None:
    stems = [f"f{number}" for number in range(posed)]
    clip = load_clip(write_frames(tmp_path / "clip", *(f"{stem}.png" for stem in stems)))
    selection = select_frames(clip, poses_for(*stems), frames=None, default=count)
    assert list(selection.indices) == chosen == np.linspace(0, posed - 1, count).astype(int).tolist()
    assert selection.poses[:, 0, 3].tolist() == chosen
    assert len(selection) == count


def test_sampling_is_over_the_posed_frames_only(tmp_path, write_frames, poses_for) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", *(f"f{number}.png" for number in range(10))))
    selection = select_frames(clip, poses_for("f2", "f3", "f7", "f8"), frames=3, default=32)
    assert selection.indices == (2, 3, 8)


def test_repeated_frames_are_noticed_once(inputs, caplog, poses_for) -> None:
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        select_frames(load_clip(inputs.video), poses_for(*STEMS), frames=None, default=8)
    assert [record.getMessage() for record in caplog.records] == [
        "8 frames are sampled from 3 with a pose, so frames repeat (--frames)"
    ]


@pytest.mark.parametrize("frames", [4, 0, -1])
def test_more_frames_than_posed_or_none_are_refused(inputs, frames: int, poses_for) -> None:
    reason = "3 of 3 frames" if frames > 0 else "expected at least 1"
    with pytest.raises(BadInput, match=f"--frames {frames}: {reason}"):
        select_frames(load_clip(inputs.video), poses_for(*STEMS), frames=frames, default=8)


def test_no_frame_with_a_pose(inputs, poses_for) -> None:
    with pytest.raises(BadInput, match="frames are named like frame_0000000003, poses like frame_30"):
        select_frames(load_clip(inputs.video), poses_for("frame_30"), frames=None, default=2)


def test_times_are_numbers_over_the_rate(inputs, poses_for) -> None:
    selection = select_frames(load_clip(inputs.video), poses_for(*STEMS), frames=None, default=3)
    assert selection.timing() == (1.2, [0.3, 0.5, 0.9])


def test_the_length_is_by_default_frames_over_rate(inputs, poses_for) -> None:
    (inputs.video / "clip.json").unlink()
    clip = load_clip(inputs.video, fps=2)
    assert select_frames(clip, poses_for(STEMS[0]), frames=1, default=1).timing() == (1.5, [1.5])


def test_frames_after_the_end_are_warned_of(inputs, caplog, poses_for) -> None:
    selection = select_frames(load_clip(inputs.video, seconds=0.5), poses_for(*STEMS), frames=3, default=3)
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        selection.timing()
    assert "0.90 s, after the clip's end at 0.50 s" in caplog.text


def test_without_a_rate_the_times_name_the_options(inputs, poses_for) -> None:
    (inputs.video / "clip.json").unlink()
    selection = select_frames(load_clip(inputs.video), poses_for(*STEMS), frames=3, default=3)
    with pytest.raises(BadInput, match=r"--fps .*--video-seconds.*clip\.json.*--no-time-instruction"):
        selection.timing()


def test_first_frame_shifts_the_numbers(inputs, poses_for) -> None:
    clip = load_clip(inputs.video, first_frame=1)
    assert clip.times == (0.2, 0.4, 0.8)
    assert select_frames(clip, poses_for(*STEMS), frames=2, default=3).timing() == (1.2, [0.2, 0.8])


def test_a_pose_that_cannot_be_used_counts_as_absent(inputs, caplog) -> None:
    (inputs.poses / f"{STEMS[1]}.txt").write_text("-inf " * 16)
    scene, clip = load_scene(inputs.scene), load_clip(inputs.video)
    assert select_frames(clip, scene.poses, frames=None, default=2).indices == (0, 2)
    assert f"1 of 3 poses cannot be used and count as absent; first pose {inputs.poses / STEMS[1]}.txt" in caplog.text
    with pytest.raises(BadInput, match=rf"2 of 3 frames .* have a pose; .*{STEMS[1]}\.txt: holds NaN or infinity"):
        select_frames(clip, scene.poses, frames=3, default=3)


def test_a_frame_that_repeats_has_its_pose_read_once(inputs) -> None:
    class Counted(dict[str, np.ndarray]):
        read = 0

        def __getitem__(self, stem: str) -> np.ndarray:
            self.read += 1
            return super().__getitem__(stem)

    poses = Counted(load_scene(inputs.scene).poses)
    assert len(select_frames(load_clip(inputs.video), poses, frames=None, default=9)) == 9
    assert poses.read == 3


def test_files_without_poses_in_memory(inputs) -> None:
    with pytest.raises(BadInput, match=r"the scene has none; give poses to Scene\.of"):
        select_frames(load_clip(inputs.video), {}, frames=None, default=2)
