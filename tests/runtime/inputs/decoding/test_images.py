"""Image files: orientation, depth, pages, and damage."""

import contextlib
import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import BadInput, load_clip
from stllm_edge.runtime.inputs.decoding.images import read_image

GREY = np.random.default_rng(3).integers(0, 256, (6, 8), np.uint8)
RGB = np.random.default_rng(4).integers(0, 256, (6, 8, 3), np.uint8)
# EXIF orientation to how the file's pixels have to be turned to be upright
TURNS = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 3),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}


def write(folder: Path, pixels: np.ndarray, name: str = "a_1.png", *more: np.ndarray, **options: object) -> Path:
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name, **options)
    for place, other in enumerate(more, 2):
        Image.fromarray(other).save(folder / name.replace("1", str(place)))
    return folder


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_orientation_is_applied_and_said(tmp_path, orientation: int, suffix: str, caplog) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if suffix == ".webp" else {}
    with caplog.at_level(logging.INFO, "stllm_edge"):
        clip = load_clip(write(tmp_path / "clip", RGB, f"a_1{suffix}", exif=exif, **lossless))
    (frame,) = clip.read([0])
    assert np.array_equal(frame, TURNS[orientation](RGB))
    assert clip.size == frame.shape[1::-1]
    assert clip.turns == {3: 2, 6: 3, 8: 1}.get(orientation, 0)
    assert ("turned as EXIF says" in caplog.text) == (orientation != 1)


@pytest.mark.parametrize("name", ["a_1.png", "a_1.tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_more_bits_is_that_of_8(tmp_path, name: str, bits: int) -> None:
    deep = GREY.astype(np.uint16) << (bits - 8)
    deep[0, 0] = (1 << bits) - 1
    expected = GREY.copy()
    expected[0, 0] = 255
    (frame,) = load_clip(write(tmp_path / "clip", deep, name)).read([0])
    assert np.array_equal(frame, np.repeat(expected[..., None], 3, axis=2))


def test_8_bits_repeated_to_16_come_back(tmp_path) -> None:
    (frame,) = load_clip(write(tmp_path / "clip", GREY.astype(np.uint16) * 257)).read([0])
    assert np.array_equal(frame[..., 0], GREY)


def test_all_frames_have_the_same_white(tmp_path, levels) -> None:
    shades = [np.full((6, 8), level << 4, np.uint16) for level in (0, 100, 255)]
    clip = load_clip(write(tmp_path / "clip", shades[0], "a_1.png", *shades[1:]))
    assert levels(clip, [0, 1, 2]) == [0, 100, 255]


def test_a_frame_brighter_than_white_is_refused(tmp_path) -> None:
    shades = [np.full((6, 8), 4000, np.uint16)] * 20
    clip = load_clip(write(tmp_path / "clip", *shades[:1], "a_1.png", *shades[1:]))
    Image.fromarray(np.full((6, 8), 5000, np.uint16)).save(tmp_path / "clip" / "a_2.png")
    with pytest.raises(BadInput, match=r"a_2\.png: its values go up to 5000, .* 4095; convert to 8 bits"):
        list(clip.read(range(20)))


@pytest.mark.parametrize(("scale", "shown"), [(1 / 255, GREY), (1.0, GREY)])
def test_floats_are_scaled(tmp_path, scale: float, shown: np.ndarray) -> None:
    (frame,) = load_clip(write(tmp_path / "clip", (GREY * scale).astype(np.float32), "a_1.tif")).read([0])
    assert np.array_equal(frame[..., 1], shown)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN or infinity"), (1e6, "expected at most 255")])
def test_floats_that_are_no_grey_levels(tmp_path, value: float, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        load_clip(write(tmp_path / "clip", np.full((6, 8), value, np.float32), "a_1.tif"))


def test_pages_beyond_the_first_are_told(tmp_path, caplog) -> None:
    (tmp_path / "clip").mkdir()
    pages = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    pages[0].save(tmp_path / "clip" / "a_1.tif", save_all=True, append_images=pages[1:])
    (frame,) = load_clip(tmp_path / "clip").read([0])
    assert np.array_equal(frame, RGB)
    assert "hold several pictures, 2 in the first" in caplog.text


@pytest.mark.parametrize("size", [(5000, 5000), (65_535, 65_535)])
def test_a_header_that_claims_more_pixels_than_the_file_holds(tmp_path, size: tuple[int, int]) -> None:
    file = tmp_path / "a_1.bmp"
    Image.fromarray(RGB).save(file)
    content = bytearray(file.read_bytes())
    content[18:26] = size[0].to_bytes(4, "little") + size[1].to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(BadInput, match=r"a_1\.bmp: unreadable \((it claims 5000x5000 pixels in 198 bytes|Image size)"):
        read_image(file)


def test_a_part_that_claims_more_than_the_file_holds_is_not_allocated(tmp_path: Path) -> None:
    file = write(tmp_path, RGB) / "a_1.png"
    content = bytearray(file.read_bytes())
    place = content.index(b"IDAT") - 4
    content[place : place + 4] = b"\x7f\xff\xff\xff"
    file.write_bytes(content)
    tracemalloc.start()
    with contextlib.suppress(BadInput):
        read_image(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def test_damaged_images_are_read_or_refused(tmp_path, survives_damage) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("png", "jpeg", "webp", "bmp", "tiff"):
        Image.fromarray(RGB).save(tmp_path / f"turned.{kind}", **({} if kind == "bmp" else {"exif": exif}))
    for suffix, options in (("png", {}), ("tif", {}), ("tiff", {"compression": "tiff_lzw"})):
        Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999).save(tmp_path / f"deep.{suffix}", **options)
    survives_damage("images", tmp_path, 80)
