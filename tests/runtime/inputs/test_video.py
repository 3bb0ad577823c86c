import json
import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import BadInput, load_clip
from stllm_edge.runtime.inputs.video import Clip, pixel_values, select_frames

STEMS = ["frame_0000000003", "frame_0000000005", "frame_0000000009"]


def poses_for(*stems: str) -> dict[str, np.ndarray]:
    """Poses that can be told apart by their translation."""
    poses = {}
    for place, stem in enumerate(stems):
        poses[stem] = np.eye(4)
        poses[stem][0, 3] = place
    return poses


def write_frames(folder: Path, *names: str) -> Path:
    """Frames whose grey level is their place."""
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        Image.fromarray(np.full((6, 8, 3), place, np.uint8)).save(folder / name)
    return folder


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


def levels(clip: Clip, indices: list[int]) -> list[int]:
    return [round(float(frame.mean())) for frame in clip.read(indices)]


# folders of frames


def test_a_folder_of_frames(inputs) -> None:
    clip = load_clip(inputs.video)
    assert [file.stem for file in clip.files] == STEMS
    assert (clip.numbers, clip.size, clip.fps, clip.seconds) == ((3, 5, 9), (40, 30), 10, 1.2)
    assert len(clip) == 3
    for file, frame in zip(clip.files, clip.read(range(3)), strict=True):
        assert np.array_equal(frame, np.asarray(Image.open(file)))


def test_frames_are_in_the_order_of_their_numbers(tmp_path) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", "f10.png", "f9.png", "f100.png"), fps=1)
    assert [file.name for file in clip.files] == ["f9.png", "f10.png", "f100.png"]
    assert levels(clip, [0, 1, 2]) == [1, 0, 2]


def test_frames_without_numbers_are_in_the_order_of_their_names(tmp_path) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", "b.png", "a.png"))
    assert [file.name for file in clip.files] == ["a.png", "b.png"]
    assert clip.numbers == (0, 1)


def test_frames_may_repeat(inputs) -> None:
    frames = list(load_clip(inputs.video).read([0, 0, 2]))
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[1], frames[2])


@pytest.mark.parametrize("name", ["a_1.jpg", "a_1.JPEG", "a_1.PNG"])
def test_kinds_of_image_files(tmp_path, name: str) -> None:
    assert len(load_clip(write_frames(tmp_path / "clip", name))) == 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_any_mode_become_rgb(tmp_path, mode: str) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    image = Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode)
    image.save(folder / ("a_1.jpg" if mode == "CMYK" else "a_1.png"))
    (frame,) = load_clip(folder).read([0])
    assert frame.shape == (6, 8, 3)
    assert frame.dtype == np.uint8
    assert frame.min() >= 250


def test_other_files_are_not_frames(inputs) -> None:
    (inputs.video / "notes_77.txt").write_text("not a frame")
    assert len(load_clip(inputs.video)) == 3


def test_first_frame_shifts_the_numbers(inputs) -> None:
    clip = load_clip(inputs.video, first_frame=1)
    assert clip.numbers == (2, 4, 8)
    selection = select_frames(clip, poses_for(*STEMS), frames=None, default=3)
    assert "located at 0.20s,0.40s,0.80s." in selection.time_instruction()


def test_a_first_frame_after_the_first_is_refused(inputs) -> None:
    with pytest.raises(BadInput, match=r"--first-frame 4: .*frame_0000000003\.png comes before it"):
        load_clip(inputs.video, first_frame=4)


def test_options_win_over_the_description(inputs) -> None:
    clip = load_clip(inputs.video, fps=20, seconds=7)
    assert (clip.fps, clip.seconds) == (20, 7)


@pytest.mark.parametrize("description", [{}, {"fps": 5}, {"seconds": 5}, {"fps": 5, "author": "me"}])
def test_a_description_may_be_partial(inputs, description: dict[str, object]) -> None:
    (inputs.video / "clip.json").write_text(json.dumps(description))
    clip = load_clip(inputs.video)
    assert (clip.fps, clip.seconds) == (description.get("fps"), description.get("seconds"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        "[]",
        "null",
        "5",
        '"fps"',
        '{"fps": "10"}',
        '{"fps": 0}',
        '{"fps": -1}',
        '{"fps": true}',
        '{"fps": null}',
        '{"fps": NaN}',
        '{"fps": Infinity}',
        '{"seconds": [1]}',
        '{"fps": 1' + "0" * 400 + "}",
        "[" * 100_000,
    ],
)
def test_nonsense_in_the_description(inputs, content: str) -> None:
    (inputs.video / "clip.json").write_text(content)
    with pytest.raises(BadInput, match=r"clip\.json"):
        load_clip(inputs.video)


def test_a_description_that_is_no_text(inputs) -> None:
    (inputs.video / "clip.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"clip\.json"):
        load_clip(inputs.video)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("option", ["fps", "seconds"])
def test_rates_and_lengths_are_positive(inputs, option: str, value: float) -> None:
    with pytest.raises(BadInput, match="expected a positive number"):
        load_clip(inputs.video, **{option: value})


def test_a_clip_that_does_not_exist(tmp_path) -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        load_clip(tmp_path / "nowhere")


def test_a_folder_without_frames(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"holds no \.jpg, \.jpeg, \.png frames"):
        load_clip(tmp_path)


@pytest.mark.parametrize("other", ["frame_5.png", "frame_0000000005.jpg", "again_05.png"])
def test_frames_with_the_same_number_are_refused(inputs, other: str) -> None:
    write_frames(inputs.video, other)
    with pytest.raises(BadInput, match="have the same number"):
        load_clip(inputs.video)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "folder"])
def test_unreadable_frames_are_named(inputs, place: int, damage: str) -> None:
    file = inputs.video / f"{STEMS[place]}.png"
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(BadInput, match=rf"{STEMS[place]}\.png: unreadable"):
        list(load_clip(inputs.video).read(range(3)))


def test_frames_of_another_size_are_refused(inputs) -> None:
    Image.new("RGB", (41, 30)).save(inputs.video / f"{STEMS[1]}.png")
    with pytest.raises(BadInput, match=r"frame_0000000005\.png: is 41x30"):
        list(load_clip(inputs.video).read(range(3)))


# selection


def test_poses_are_matched_by_stem(inputs) -> None:
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
def test_frames_are_sampled_evenly_and_rounded_down(tmp_path, posed: int, count: int, chosen: list[int]) -> None:
    stems = [f"f{number}" for number in range(posed)]
    clip = load_clip(write_frames(tmp_path / "clip", *(f"{stem}.png" for stem in stems)))
    selection = select_frames(clip, poses_for(*stems), frames=None, default=count)
    assert list(selection.indices) == chosen == np.linspace(0, posed - 1, count).astype(int).tolist()
    assert selection.poses[:, 0, 3].tolist() == chosen
    assert len(selection) == count


def test_sampling_is_over_the_posed_frames_only(tmp_path) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", *(f"f{number}.png" for number in range(10))))
    selection = select_frames(clip, poses_for("f2", "f3", "f7", "f8"), frames=3, default=32)
    assert selection.indices == (2, 3, 8)


def test_repeated_frames_are_noticed_once(inputs, caplog) -> None:
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        select_frames(load_clip(inputs.video), poses_for(*STEMS), frames=None, default=8)
    assert [record.getMessage() for record in caplog.records] == [
        "8 frames are sampled from 3 with a pose, so frames repeat (--frames)"
    ]


@pytest.mark.parametrize("frames", [4, 0, -1])
def test_more_frames_than_posed_or_none_are_refused(inputs, frames: int) -> None:
    reason = "3 of 3 frames" if frames > 0 else "expected at least 1"
    with pytest.raises(BadInput, match=f"--frames {frames}: {reason}"):
        select_frames(load_clip(inputs.video), poses_for(*STEMS), frames=frames, default=8)


def test_no_frame_with_a_pose(inputs) -> None:
    with pytest.raises(BadInput, match="frames are named like frame_0000000003, poses like frame_3"):
        select_frames(load_clip(inputs.video), poses_for("frame_3"), frames=None, default=2)


def test_times_are_numbers_over_the_rate(inputs) -> None:
    line = select_frames(load_clip(inputs.video), poses_for(*STEMS), frames=None, default=3).time_instruction()
    assert line.startswith("The video lasts for 1.20 seconds, and 3 frames")
    assert "0.30s,0.50s,0.90s." in line


def test_the_length_is_by_default_frames_over_rate(inputs) -> None:
    (inputs.video / "clip.json").unlink()
    clip = load_clip(inputs.video, fps=2)
    assert clip.seconds is None
    line = select_frames(clip, poses_for(STEMS[0]), frames=1, default=1).time_instruction()
    assert line.startswith("The video lasts for 1.50 seconds, and 1 frames")


def test_frames_after_the_end_are_warned_of(inputs, caplog) -> None:
    selection = select_frames(load_clip(inputs.video, seconds=0.5), poses_for(*STEMS), frames=3, default=3)
    with caplog.at_level(logging.WARNING, "stllm_edge"):
        selection.time_instruction()
    assert "0.90 s, after the clip's end at 0.50 s" in caplog.text


def test_without_a_rate_the_times_name_the_options(inputs) -> None:
    (inputs.video / "clip.json").unlink()
    selection = select_frames(load_clip(inputs.video), poses_for(*STEMS), frames=3, default=3)
    with pytest.raises(BadInput, match=r"--fps .*--video-seconds.*clip\.json.*--no-time-instruction"):
        selection.time_instruction()


# video files


@pytest.mark.parametrize("options", [{}, {"max_b_frames": 2}, {"gop_size": 3}], ids=["plain", "b-frames", "short gop"])
def test_a_video_file_is_read_by_place(tmp_path, options: dict[str, int]) -> None:
    clip = load_clip(write_video(tmp_path / "clip.mp4", 20, **options))
    assert (len(clip), clip.size, clip.fps, clip.files) == (20, (32, 16), 25, None)
    read = levels(clip, [0, 0, 3, 11, 19, 19])
    assert np.allclose(read, [0, 0, 24, 88, 152, 152], atol=3)


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path) -> None:
    """A cut without re-encoding keeps frames before its start in the file; players do not show them."""
    clip = load_clip(write_video(tmp_path / "cut.mp4", 20, start=-5, max_b_frames=2))
    with av.open(str(clip.path)) as container:
        shown = sum(1 for _ in container.decode(video=0))
    assert shown < 20
    assert len(clip) == shown
    assert len(list(clip.read([0, shown - 1]))) == 2


@pytest.mark.parametrize(("first", "numbers"), [(0, (0, 10, 19)), (1, (1, 11, 20))])
def test_poses_of_a_video_are_matched_by_number(tmp_path, first: int, numbers: tuple[int, ...]) -> None:
    clip = load_clip(write_video(tmp_path / "clip.mp4", 20), first_frame=first)
    poses = poses_for(*(f"frame_{number:010d}" for number in numbers))
    selection = select_frames(clip, poses, frames=3, default=32)
    assert selection.indices == (0, 10, 19)
    assert selection.poses[:, 0, 3].tolist() == [0, 1, 2]


def test_poses_beyond_a_video_are_left_out(tmp_path) -> None:
    clip = load_clip(write_video(tmp_path / "clip.mp4", 5), first_frame=1)
    selection = select_frames(clip, poses_for("0", "1", "5", "6"), frames=2, default=32)
    assert selection.indices == (0, 4)


def test_no_pose_within_a_video_names_the_numbers(tmp_path) -> None:
    clip = load_clip(write_video(tmp_path / "clip.mp4", 5), first_frame=1)
    with pytest.raises(BadInput, match=r"named like numbers 1\.\.5, poses like frame_9.*--first-frame"):
        select_frames(clip, poses_for("frame_9"), frames=None, default=2)


def test_poses_of_a_video_with_the_same_number_are_refused(tmp_path) -> None:
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
    assert (len(clip), clip.size, clip.fps, clip.seconds) == (250, (640, 272), 25, None)
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
def test_a_real_video_is_sampled_by_the_numbers_of_its_poses(bikes, first: int) -> None:
    clip = load_clip(bikes, first_frame=first)
    poses = poses_for(*(f"frame_{number + first:010d}" for number in range(0, 250, 10)))
    selection = select_frames(clip, poses, frames=4, default=32)
    assert selection.indices == (0, 80, 160, 240)
    assert selection.time_instruction().startswith("The video lasts for 10.00 seconds, and 4 frames")
    assert "0.00s,3.20s,6.40s,9.60s." in selection.time_instruction()


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


# pixels


def test_pixels_are_resized_by_pil_and_span_minus_one_to_one() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (27, 48, 3), np.uint8)
    pixels = pixel_values(frame, 33)
    resized = np.asarray(Image.fromarray(frame).resize((33, 33), Image.Resampling.BICUBIC))
    assert pixels.shape == (3, 33, 33)
    assert pixels.dtype == np.float32
    assert np.allclose(pixels, resized.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(("level", "value"), [(0, -1), (255, 1)])
def test_black_and_white_are_the_ends(level: int, value: int) -> None:
    assert (pixel_values(np.full((9, 9, 3), level, np.uint8), 14) == value).all()


def test_reference_pixels_are_reproduced_bit_for_bit(golden) -> None:
    clip = load_clip(golden.video)
    pixels = np.stack([pixel_values(frame, 70) for frame in clip.read(range(len(clip)))])
    assert np.array_equal(pixels, golden.expected["pixel_values"])
    assert list(clip.numbers) == golden.case["frame_index"]
