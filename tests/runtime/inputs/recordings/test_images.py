"""Images in messages of every encoding, and those that are refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stllm_edge.runtime import BadInput
from stllm_edge.runtime.inputs.recordings.images import is_depth, read_picture

from .bags import Robot, recorded


@pytest.fixture
def robot(tmp_path: Path) -> Any:
    with recorded(tmp_path) as (robot, _):
        yield robot


@pytest.fixture
def picture() -> np.ndarray:
    """Smooth, so that what mosaics and colour differences leave out is little."""
    rows, columns = np.mgrid[:24, :32]
    return np.stack([rows * 8, columns * 6, 200 - 2 * rows - columns], axis=2).astype(np.uint8)


def deep(values: np.ndarray, order: str) -> np.ndarray:
    return (values.astype(np.uint16) << 8 | 7).astype(order)


EXACT = {
    "rgb8": lambda p: p,
    "bgr8": lambda p: p[..., ::-1],
    "8UC3": lambda p: p[..., ::-1],
    "rgba8": lambda p: np.dstack([p, np.full(p.shape[:2], 9, np.uint8)]),
    "bgra8": lambda p: np.dstack([p[..., ::-1], np.full(p.shape[:2], 9, np.uint8)]),
    "8UC4": lambda p: np.dstack([p[..., ::-1], np.full(p.shape[:2], 9, np.uint8)]),
    "rgb16": lambda p: deep(p, "<u2"),
    "bgr16": lambda p: deep(p[..., ::-1], "<u2"),
    "rgba16": lambda p: deep(np.dstack([p, p[..., :1]]), "<u2"),
}


@pytest.mark.parametrize("encoding", EXACT)
def test_channels_side_by_side_are_exact(encoding: str, robot: Robot, picture: np.ndarray) -> None:
    message = robot.image(0, EXACT[encoding](picture), encoding)
    assert np.array_equal(read_picture(message, "x").rgb(255), picture)


def test_rows_may_be_padded_and_bytes_in_the_other_order(robot: Robot, picture: np.ndarray) -> None:
    padded = np.zeros((24, 100), np.uint8)
    padded[:, :96] = picture.reshape(24, 96)
    message = robot.image(0, picture, step=100, data=padded.ravel())
    assert np.array_equal(read_picture(message, "x").values, picture)
    message = robot.image(0, deep(picture, ">u2"), "rgb16", is_bigendian=1)
    assert np.array_equal(read_picture(message, "x").values, picture)


@pytest.mark.parametrize(("encoding", "white"), [("mono8", 255), ("8UC1", 255), ("mono16", 65535)])
def test_grey(encoding: str, white: float, robot: Robot, picture: np.ndarray) -> None:
    grey = picture[..., 0]
    shown = read_picture(robot.image(0, deep(grey, "<u2") if white > 255 else grey, encoding), "x").rgb(white)
    assert np.array_equal(shown, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_mosaics(pattern: str, bits: int, robot: Robot, picture: np.ndarray) -> None:
    mosaic = np.zeros((24, 32), np.uint8)
    for place, colour in enumerate(pattern):
        row, column = divmod(place, 2)
        mosaic[row::2, column::2] = picture[row::2, column::2, "rgb".index(colour)]
    message = robot.image(0, deep(mosaic, "<u2") if bits == 16 else mosaic, f"bayer_{pattern}{bits}")
    shown = read_picture(message, "x").values.astype(int)
    assert np.abs(shown - picture)[2:-2, 2:-2].max() <= 8


def brightness_and_colours(picture: np.ndarray) -> np.ndarray:
    """Y, Cb, Cr [H, W, 3] of BT.601 in 16..240."""
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112], [112, -93.786, -18.214]]) / 255
    return np.rint(picture @ matrix.T + [16, 128, 128]).astype(np.uint8)


@pytest.mark.parametrize("encoding", ["yuv422", "UYVY", "yuv422_yuy2", "YUYV", "nv12", "nv21", "nv24"])
def test_brightness_with_colour_differences(encoding: str, robot: Robot, picture: np.ndarray) -> None:
    y, u, v = np.moveaxis(brightness_and_colours(picture), 2, 0)
    if encoding.startswith("nv"):
        step = 1 if encoding == "nv24" else 2
        pair = (v, u) if encoding == "nv21" else (u, v)
        colours = np.stack([part[::step, ::step] for part in pair], axis=2)
        data = np.concatenate([y.ravel(), colours.ravel()])
        message = robot.image(0, y, encoding, data=data)
    else:
        u, v = u[:, ::2], v[:, ::2]
        parts = [u, y[:, ::2], v, y[:, 1::2]] if encoding in ("yuv422", "UYVY") else [y[:, ::2], u, y[:, 1::2], v]
        message = robot.image(0, np.stack(parts, axis=2).reshape(24, 64), encoding, width=32)
    shown = read_picture(message, "x").values.astype(int)
    assert np.abs(shown - picture).mean() < 4


@pytest.mark.parametrize(("kind", "suffix"), [("png", "PNG"), ("bgr8; png compressed bgr8", "PNG"), ("webp", "WEBP")])
def test_compressed_images(kind: str, suffix: str, robot: Robot, picture: np.ndarray) -> None:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, suffix, lossless=True)
    assert np.array_equal(read_picture(robot.compressed(0, content.getvalue(), kind), "x").values, picture)


def refusals(robot: Robot, picture: np.ndarray) -> dict[str, Any]:
    grey = picture[..., 0]
    return {
        "'bayer_xyzw8' is not read; known are rgb8": robot.image(0, grey, "bayer_xyzw8"),
        "32FC1 holds depth, expected a picture": robot.image(0, grey.astype("<f4"), "32FC1"),
        "16UC1 holds depth": robot.image(0, grey.astype("<u2"), "16UC1"),
        "compressedDepth png holds depth": robot.compressed(0, b"x", "16UC1; compressedDepth png"),
        "h264 is a stream; convert it to JPEG": robot.compressed(0, b"x", "h264"),
        "damaged; 32x24 rgb8 of 96 bytes a row, found 96": robot.image(0, picture, data=picture.ravel()[:96]),
        "damaged; 32x24 rgb8 of 5 bytes a row": robot.image(0, picture, step=5),
        "has 0x24 pixels": robot.image(0, picture, width=0),
        "31x24 pixels of nv12, expected even numbers": robot.image(0, grey, "nv12", width=31),
        "cannot identify image file": robot.compressed(0, b"no image at all"),
        "claims 10000x10000 pixels": robot.compressed(0, b"P5 10000 10000 255 " + bytes(100), "png"),
        "4000000000x3": robot.image(0, picture, width=4_000_000_000, height=3),
    }


def test_others_are_refused_with_words(robot: Robot, picture: np.ndarray) -> None:
    for words, message in refusals(robot, picture).items():
        with pytest.raises(BadInput, match=r"^/eye at 3: unreadable") as caught:
            read_picture(message, "/eye at 3")
        assert words in str(caught.value)


def test_depth_is_known(robot: Robot, picture: np.ndarray) -> None:
    assert is_depth(robot.image(0, picture[..., 0], "16UC1"))
    assert not is_depth(robot.image(0, picture))
