"""Clips: times, lengths and sizes, intrinsics of turned frames, and clips as users have them."""

import json
import logging

import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import BadInput, Clip, load_clip, load_scene
from stllm_edge.runtime.inputs.selection import select_frames, upright

STEMS = ("frame_0000000003", "frame_0000000005", "frame_0000000009")


def test_options_win_over_the_description(inputs) -> None:
    clip = load_clip(inputs.video, fps=20, seconds=7)
    assert (clip.times, clip.seconds) == ((0.15, 0.25, 0.45), 7)


@pytest.mark.parametrize("description", [{}, {"fps": 5}, {"seconds": 5}, {"fps": 5, "author": "me"}])
def test_a_description_may_be_partial(inputs, description: dict[str, object]) -> None:
    (inputs.video / "clip.json").write_text(json.dumps(description))
    clip = load_clip(inputs.video)
    assert clip.times == ((0.6, 1, 1.8) if "fps" in description else None)
    assert clip.seconds == description.get("seconds", 0.6 if "fps" in description else None)


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


def test_frames_of_another_size_are_refused(inputs) -> None:
    Image.new("RGB", (41, 30)).save(inputs.video / f"{STEMS[1]}.png")
    with pytest.raises(BadInput, match=r"frame_0000000005\.png: is 41x30"):
        list(load_clip(inputs.video).read(range(3)))


def test_times_in_names_are_those_of_the_frames(tmp_path, write_frames, caplog) -> None:
    names = [f"1502345678.{fraction}.png" for fraction in ("301742", "501742", "901742")]
    with caplog.at_level(logging.INFO, "stllm_edge"):
        clip = load_clip(write_frames(tmp_path / "clip", *names))
    assert clip.times == pytest.approx((0, 0.2, 0.6))
    assert clip.seconds == pytest.approx(0.9)
    assert "ordered by the time in them, from 1502345678.301742.png" in caplog.text
    assert "times of the frames are those in their names" in caplog.text


@pytest.mark.parametrize("names", [("42183410083", "42381410083"), ("1502345678.5", "1502345679.5")])
def test_a_rate_over_names_that_are_no_frame_numbers_counts_places(tmp_path, names, write_frames, caplog) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", *(f"{name}.png" for name in names)), fps=10)
    assert clip.times == (0, 0.1)
    assert f"{names[0]}.png hold no frame numbers at 10 frames a second" in caplog.text
    assert ("leave out the rate" in caplog.text) == ("." in names[0])


def test_numbers_without_a_unit_are_no_times(tmp_path, write_frames) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", "42183410083.png", "42381410083.png"))
    with pytest.raises(BadInput, match="give --fps"):
        clip.timing()


def project(intrinsics: np.ndarray, point: np.ndarray) -> np.ndarray:
    pixel = intrinsics @ point
    return pixel[:2] / pixel[2]


# quarter turns counterclockwise: where a stored pixel of a frame of 8x6 is shown, and the point in the turned camera
TURNED = {
    1: (lambda x, y: (y, 8 - x), lambda x, y, z: (y, -x, z)),
    3: (lambda x, y: (6 - y, x), lambda x, y, z: (-y, x, z)),
}


@pytest.mark.parametrize("turns", TURNED)
def test_intrinsics_of_the_stored_frames_are_turned_and_told(inputs, turns: int, caplog) -> None:
    stored = np.array([[7.0, 0, 4.1], [0, 9.0, 2.9], [0, 0, 1]])
    clip = Clip(load_clip(inputs.video).frames, (6, 8), turns=turns)
    pixel, point = TURNED[turns]
    found = project(clip.upright(stored), np.array(point(0.3, -0.2, 2.0)))
    assert found == pytest.approx(pixel(*project(stored, np.array([0.3, -0.2, 2.0]))))
    assert "K is of 8x6 as they are stored, so it is turned alike" in caplog.text


@pytest.mark.parametrize(("turns", "size"), [(0, (6, 8)), (2, (6, 8)), (1, (8, 6)), (1, (8, 8))])
def test_intrinsics_of_upright_frames_stay(inputs, turns: int, size: tuple[int, int], caplog) -> None:
    stored = np.array([[7.0, 0, 4.1], [0, 9.0, 2.9], [0, 0, 1]])
    assert Clip(load_clip(inputs.video).frames, size, turns=turns).upright(stored) is stored
    assert not caplog.records


# folder, clip, first frame, rate; what has to be said as a warning, if anything
CASES = {
    "01-frame-order-by-last-digits/timestamps": ("video", 0, ""),
    "01-frame-order-by-last-digits/camera": ("video", 0, ""),
    "02-one-image-without-number/thumbnail": ("video", 1, "left out, 1 (thumbnail.jpg)"),
    "11-video-rotation/quarter_turn": ("video.mp4", 1, ""),
    "12-exif-orientation/orientation_6": ("video", 1, ""),
    "13-png-16-bit/grey": ("video", 1, ""),
    "19-names-match-in-part/padded": ("video", 1, ""),
    "20-other-image-types-left-out/half_webp": ("video", 1, ""),
    "29-times-of-frames/variable_rate": ("video.mp4", 1, ""),
    "29-times-of-frames/names_as_times": ("video", 0, ""),
    "99-stays-right/natural_order": ("video", 1, ""),
    "99-stays-right/bt709": ("video.mp4", 0, ""),
    "room": ("video", 1, ""),
}
TIMES = {
    "29-times-of-frames/variable_rate": (None, [0, 0.3, 1.6, 6.0]),
    "29-times-of-frames/names_as_times": (15, [0, 1 / 15, 2 / 15, 3 / 15]),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_from_the_field_give_the_frames_of_the_room(cases, name: str, caplog) -> None:
    (video, first, words), room, folder = CASES[name], cases / "room", cases / name
    fps, times = TIMES.get(name, (None, None))
    own = next(folder.glob("K*.txt"), room / "K.txt"), folder / "poses"
    poses = own[1] if own[1].is_dir() else room / "poses"
    scene, clean = (load_scene(room / "cloud.ply", poses=p, intrinsics=own[0]) for p in (poses, room / "poses"))
    clip = load_clip(folder / video, first_frame=first, fps=fps)
    selection = select_frames(clip, scene.poses, frames=4, default=4)
    assert np.allclose(selection.poses, list(clean.poses.values()), atol=1e-6)
    assert np.array_equal(upright(scene, clip).intrinsics, clean.intrinsics)
    plain = load_clip(folder / "plain" if (folder / "plain").is_dir() else room / "video", first_frame=1)
    for frame, right in zip(clip.read(selection.indices), plain.read(range(4)), strict=True):
        shown = np.asarray(Image.fromarray(frame).resize(plain.size)).astype(int)
        assert np.abs(shown - right).mean() < 4
    if times:
        assert selection.timing()[1] == pytest.approx(times, abs=1e-3)
    warned = [record.getMessage() for record in caplog.records]
    assert (warned == []) == (not words and name != "29-times-of-frames/names_as_times")
    assert words in " ".join(warned)


def test_cases_of_streams_from_the_field(cases, caplog) -> None:
    clip = load_clip(cases / "25-video-without-keyframe/cut/cut.mkv")
    assert (len(clip), len(list(clip.read(range(30))))) == (30, 30)
    with pytest.raises(BadInput, match=r"was not closed, .* its index \(moov\) is missing"):
        load_clip(cases / "25-video-without-keyframe/not_closed/video.mp4")
    folder = cases / "19-names-match-in-part/video_from_1"
    scene = load_scene(cases / "room/cloud.ply", poses=folder / "poses", intrinsics=folder / "K-of-192x144.txt")
    select_frames(load_clip(folder / "video.mp4"), scene.poses, frames=None, default=3)
    assert "poses without a frame, 1 of 4 (frame_0000000004); --first-frame N" in caplog.text
