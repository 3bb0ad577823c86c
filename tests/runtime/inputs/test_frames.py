"""Folders of frames: order, kinds of images, and files that cannot be read."""

import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import BadInput, load_clip

STEMS = ("frame_0000000003", "frame_0000000005", "frame_0000000009")


def test_a_folder_of_frames(inputs) -> None:
    clip = load_clip(inputs.video)
    assert list(clip.frames.files) == [f"{stem}.png" for stem in STEMS]
    assert (clip.times, clip.size, clip.seconds) == ((0.3, 0.5, 0.9), (40, 30), 1.2)
    assert len(clip) == 3
    for file, frame in zip(clip.frames.files, clip.read(range(3)), strict=True):
        assert np.array_equal(frame, np.asarray(Image.open(inputs.video / file)))


def test_frames_are_in_the_order_of_their_numbers(tmp_path, write_frames, levels) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", "f10.png", "f9.png", "f100.png"), fps=1)
    assert list(clip.frames.files) == ["f9.png", "f10.png", "f100.png"]
    assert levels(clip, [0, 1, 2]) == [1, 0, 2]


def test_frames_without_numbers_are_in_the_order_of_their_names(tmp_path, write_frames) -> None:
    clip = load_clip(write_frames(tmp_path / "clip", "b.png", "a.png"), fps=1)
    assert list(clip.frames.files) == ["a.png", "b.png"]
    assert clip.times == (0, 1)


def test_frames_may_repeat(inputs) -> None:
    frames = list(load_clip(inputs.video).read([0, 0, 2]))
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[1], frames[2])


@pytest.mark.parametrize("name", ["a_1.jpg", "a_1.JPEG", "a_1.PNG"])
def test_kinds_of_image_files(tmp_path, name: str, write_frames) -> None:
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


@pytest.mark.parametrize("name", ["a_1.webp", "a_1.BMP", "a_1.tif", "a_1.tiff"])
def test_other_kinds_of_image_files(tmp_path, name: str, write_frames, levels) -> None:
    assert levels(load_clip(write_frames(tmp_path / "clip", "a_2.png", name)), [0, 1]) == [1, 0]


@pytest.mark.parametrize("stray", ["thumbnail.png", "again_05.png", "frame_0000000005 (1).png", "cover-12-x.png"])
def test_a_stray_image_is_left_out_and_told(inputs, stray: str, write_frames, caplog) -> None:
    write_frames(inputs.video, stray)
    assert list(load_clip(inputs.video).frames.files) == [f"{stem}.png" for stem in STEMS]
    assert f"left out, 1 ({stray.removesuffix('.png')}.png)" in caplog.text
    assert caplog.records[-1].levelname == "WARNING"


def test_hidden_files_are_passed_over_and_other_pictures_told(inputs, caplog) -> None:
    for name in ("._frame_0000000003.png", ".DS_Store", "frame_0000000011.heic"):
        (inputs.video / name).write_bytes(b"\0\5\x16\7")
    assert len(load_clip(inputs.video)) == 3
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "pictures of other kinds are not read, 1 (frame_0000000011.heic); convert them"
    ]


def test_only_pictures_that_are_not_read(tmp_path) -> None:
    (tmp_path / "a_1.heic").touch()
    with pytest.raises(BadInput, match=r"a_1\.heic is of a kind that is not read, convert it"):
        load_clip(tmp_path)


def test_a_folder_that_can_be_read_in_two_ways_is_refused_with_both(tmp_path, write_frames) -> None:
    with pytest.raises(BadInput, match=r"two ways, .*\(1_10, 2_9, 3_8\) or .*\(3_8, 2_9, 1_10\)"):
        load_clip(write_frames(tmp_path / "clip", "1_10.png", "2_9.png", "3_8.png"))


def test_other_files_are_not_frames(inputs) -> None:
    (inputs.video / "notes_77.txt").write_text("not a frame")
    assert len(load_clip(inputs.video)) == 3


def test_a_first_frame_after_the_first_is_refused(inputs) -> None:
    with pytest.raises(BadInput, match=r"--first-frame 4: .*frame_0000000003\.png comes before it"):
        load_clip(inputs.video, first_frame=4)


def test_a_folder_without_frames(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"holds no \.jpg, \.jpeg, \.png, .*frames"):
        load_clip(tmp_path)


@pytest.mark.parametrize("other", ["frame_5.png", "frame_0000000005.jpg"])
def test_frames_with_the_same_number_are_refused(inputs, other: str, write_frames) -> None:
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
