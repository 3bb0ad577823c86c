"""Video files: frames by place, poses by number, and files that are damaged."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stllm_edge.runtime import BadInput, load_clip
from stllm_edge.runtime.inputs.selection import select_frames


def write_video(path: Path, count: int, *, rate: int = 25, start: int = 0, **options: int) -> Path:
    """A video whose frames are grey, 8 levels brighter each; the presentation times begin at `start`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.bit_rate = 4_000_000
        for name, value in options.items():
            setattr(stream.codec_context, name, value)
        for place in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 8 * place, np.uint8), "rgb24")
            frame.pts, frame.time_base = start + place, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("options", [{}, {"max_b_frames": 2}, {"gop_size": 3}], ids=["plain", "b-frames", "short gop"])
def test_a_video_file_is_read_by_place(tmp_path, options: dict[str, int], levels) -> None:
    clip = load_clip(write_video(tmp_path / "clip.mp4", 20, **options))
    assert (len(clip), clip.size, clip.seconds) == (20, (32, 16), 0.8)
    read = levels(clip, [0, 0, 3, 11, 19, 19])
    assert np.allclose(read, [0, 0, 24, 88, 152, 152], atol=3)
    contents = list(clip.contents([0, 3, 11, 19]))
    assert len({content.parts for content in contents}) == 4
    assert [round(float(contents[place].pixels().mean())) for place in (1, 3)] == [read[2], read[4]]


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path) -> None:
    """A cut without re-encoding keeps frames before its start in the file; players do not show them."""
    clip = load_clip(write_video(tmp_path / "cut.mp4", 20, start=-5, max_b_frames=2))
    with av.open(str(clip)) as container:
        shown = sum(1 for _ in container.decode(video=0))
    assert shown < 20
    assert len(clip) == shown
    assert len(list(clip.read([0, shown - 1]))) == 2


@pytest.mark.parametrize(("first", "numbers"), [(0, (0, 10, 19)), (1, (1, 11, 20))])
def test_poses_of_a_video_are_matched_by_number(tmp_path, first: int, numbers: tuple[int, ...], poses_for) -> None:
    clip = load_clip(write_video(tmp_path / "clip.mp4", 20), first_frame=first)
    poses = poses_for(*(f"frame_{number:010d}" for number in numbers))
    selection = select_frames(clip, poses, frames=3, default=32)
    assert selection.indices == (0, 10, 19)
    assert selection.poses[:, 0, 3].tolist() == [0, 1, 2]


def test_poses_beyond_a_video_are_left_out(tmp_path, poses_for) -> None:
    clip = load_clip(write_video(tmp_path / "clip.mp4", 5), first_frame=1)
    selection = select_frames(clip, poses_for("0", "1", "5", "6"), frames=2, default=32)
    assert selection.indices == (0, 4)


def test_no_pose_within_a_video_names_the_numbers(tmp_path, poses_for) -> None:
    clip = load_clip(write_video(tmp_path / "clip.mp4", 5), first_frame=1)
    with pytest.raises(BadInput, match=r"named like numbers 1\.\.5, poses like frame_9.*--first-frame"):
        select_frames(clip, poses_for("frame_9"), frames=None, default=2)


def test_poses_of_a_video_with_the_same_number_are_refused(tmp_path, poses_for) -> None:
    clip = load_clip(write_video(tmp_path / "clip.mp4", 5))
    with pytest.raises(BadInput, match="same number"):
        select_frames(clip, poses_for("left_3", "right_3"), frames=None, default=1)


@pytest.mark.parametrize("content", [b"", b"no video", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"])
def test_a_file_that_is_no_video(tmp_path, content: bytes) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=r"clip\.mp4: "):
        load_clip(file)


def test_a_file_without_pictures(tmp_path) -> None:
    file = tmp_path / "sound.wav"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(BadInput, match="no video stream"):
        load_clip(file)


def test_a_real_video(bikes) -> None:
    clip = load_clip(bikes)
    assert (len(clip), clip.size, clip.seconds) == (250, (640, 272), 10)
    wanted = [0, 83, 166, 249]
    with av.open(str(bikes)) as container:
        decoded = {
            place: frame.to_ndarray(format="rgb24")
            for place, frame in enumerate(container.decode(video=0))
            if place in wanted
        }
    for place, frame in zip(wanted, clip.read(wanted), strict=True):
        assert np.array_equal(frame, decoded[place])


@pytest.mark.parametrize("first", [0, 1])
def test_a_real_video_is_sampled_by_the_numbers_of_its_poses(bikes, first: int, poses_for) -> None:
    clip = load_clip(bikes, first_frame=first)
    poses = poses_for(*(f"frame_{number + first:010d}" for number in range(0, 250, 10)))
    selection = select_frames(clip, poses, frames=4, default=32)
    assert selection.indices == (0, 80, 160, 240)
    assert selection.timing() == (10, [0, 3.2, 6.4, 9.6])


def test_a_truncated_real_video_is_unreadable(bikes, tmp_path) -> None:
    file = tmp_path / "bikes.mp4"
    content = bikes.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=r"video .*bikes\.mp4"):
        list(load_clip(file).read([0, 249]))


def test_a_truncated_stream_is_named_when_a_frame_is_missing(tmp_path) -> None:
    file = write_video(tmp_path / "clip.ts", 20)
    clip = load_clip(file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=r"clip\.ts: (ends before|unreadable after) frame 19"):
        list(clip.read([0, 19]))
