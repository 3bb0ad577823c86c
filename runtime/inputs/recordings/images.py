"""Images in messages: raw ones of the encodings that cameras write, and compressed ones."""

import re
from typing import Any

import numpy as np

from ...errors import BadInput
from ..decoding.images import Picture, decode_image

__all__ = ["IMAGE_TYPES", "is_depth", "read_picture"]

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
# channels of a pixel, in the order of red, green, blue; of one channel it is grey
PACKED = {
    "rgb": (0, 1, 2),
    "bgr": (2, 1, 0),
    "rgba": (0, 1, 2, 3),
    "bgra": (2, 1, 0, 3),
    "mono": (0,),
}
# OpenCV's names, of which those of three and four channels are blue, green, red by its custom
NUMBERED = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC3": "bgr16", "16UC4": "bgra16"}
# by libswscale's names; beside it, rows of each plane a row of the image, and bytes a pixel of its rows
CONVERTED = {
    "bayer_rggb8": ("bayer_rggb8", 1, 1),
    "bayer_bggr8": ("bayer_bggr8", 1, 1),
    "bayer_gbrg8": ("bayer_gbrg8", 1, 1),
    "bayer_grbg8": ("bayer_grbg8", 1, 1),
    "bayer_rggb16": ("bayer_rggb16le", 1, 2),
    "bayer_bggr16": ("bayer_bggr16le", 1, 2),
    "bayer_gbrg16": ("bayer_gbrg16le", 1, 2),
    "bayer_grbg16": ("bayer_grbg16le", 1, 2),
    "yuv422": ("uyvy422", 1, 2),
    "uyvy": ("uyvy422", 1, 2),
    "yuv422_yuy2": ("yuyv422", 1, 2),
    "yuyv": ("yuyv422", 1, 2),
    "nv12": ("nv12", 1.5, 1),
    "nv21": ("nv21", 1.5, 1),
    "nv24": ("nv24", 3, 1),
}
DEPTHS = ("16UC1", "32FC1", "64FC1", "compressedDepth")
STREAMS = ("h264", "h265", "hevc", "av1", "theora")


def is_depth(message: Any) -> bool:
    """Whether an image holds distances."""
    kind = str(getattr(message, "encoding", "") or getattr(message, "format", ""))
    return any(name in kind for name in DEPTHS)


def read_picture(message: Any, source: str) -> Picture:
    """The image of a message; raises BadInput where it is of another kind than those that are read, or damaged."""
    try:
        if hasattr(message, "encoding"):
            return raw(message)
        kind = message.format.strip()
        if is_depth(message):
            raise ValueError(f"its format {kind} holds depth, expected a picture")
        if kind.lower() in STREAMS:
            raise ValueError(f"its format {kind} is a stream; convert it to JPEG images, or give a video with --video")
        return decode_image(bytes(message.data))
    except Exception as error:  # decoders of damaged images raise anything
        raise BadInput(f"{source}: unreadable ({error})") from None


def parts_of(message: Any) -> tuple[Any, ...]:
    """What decides every pixel of a message's image."""
    if not hasattr(message, "encoding"):
        return message.format, bytes(message.data)
    sizes = (message.width, message.height, message.step, message.is_bigendian)
    return message.encoding, *map(int, sizes), np.asarray(message.data)


def raw(message: Any) -> Picture:
    """An image that is not compressed."""
    encoding = NUMBERED.get(message.encoding, message.encoding)
    size = (message.width, message.height)
    if min(size) < 1:
        raise ValueError(f"has {size[0]}x{size[1]} pixels")
    found = re.fullmatch(r"(rgba?|bgra?|mono)(8|16)", encoding)
    if found:
        return packed(message, PACKED[found[1]], int(found[2]) // 8)
    if is_depth(message):
        raise ValueError(f"its encoding {encoding} holds depth, expected a picture")
    if encoding.lower() not in CONVERTED:
        known = ", ".join([*(f"{name}8" for name in PACKED), "mono16", "bayer_*", "yuv422", "yuv422_yuy2", "nv12"])
        raise ValueError(f"its encoding {encoding!r} is not read; known are {known} and others like them")
    return Picture(converted(message, *CONVERTED[encoding.lower()]), size, 1, 1)


def rows_of(message: Any, rows: int, width: int) -> np.ndarray:
    """The bytes [rows, width] of an image without what pads its rows; raises ValueError where there are too few."""
    step = int(message.step) or width
    if step < width or step * (rows - 1) + width > len(message.data):
        raise ValueError(
            f"damaged; {message.width}x{message.height} {message.encoding} of {step} bytes a row, found "
            f"{len(message.data)}"
        )
    data = np.asarray(message.data)
    if len(data) < step * rows:
        data = np.concatenate([data, np.zeros(step * rows - len(data), np.uint8)])
    return data[: step * rows].reshape(rows, step)[:, :width]


def packed(message: Any, order: tuple[int, ...], depth: int) -> Picture:
    """Channels side by side, of one or two bytes; grey of two is left deep."""
    height, width, channels = message.height, message.width, len(order)
    rows = rows_of(message, height, width * channels * depth)
    values = np.ascontiguousarray(rows).view(">u2" if depth == 2 and message.is_bigendian else f"<u{depth}")
    values = values.reshape(height, width, channels)
    if channels == 1:
        grey = values[..., 0]
        if depth == 2:
            return Picture(grey.astype(np.uint16), (width, height), 1, 1)
        return Picture(np.repeat(grey[..., None], 3, axis=2), (width, height), 1, 1)
    colours = values[..., list(order[:3])]
    return Picture(np.ascontiguousarray(colours if depth == 1 else colours >> 8, np.uint8), (width, height), 1, 1)


def converted(message: Any, name: str, planes: float, depth: int) -> np.ndarray:
    """[H, W, 3] uint8 RGB of mosaics and of brightness with colour differences (libswscale)."""
    import av

    height, width = message.height, message.width
    if width % 2 or height % 2:
        raise ValueError(f"damaged; {width}x{height} pixels of {message.encoding}, expected even numbers")
    rows = rows_of(message, int(height * planes), width * depth)
    if depth == 2 and message.is_bigendian and name.startswith("bayer"):
        rows = np.ascontiguousarray(rows).view(np.uint16).byteswap().view(np.uint8)
    frame = av.VideoFrame(width, height, name)
    done = 0
    for plane in frame.planes:
        target = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]
        # the second plane of nv24 has two bytes a pixel, in two rows of the message
        wide = width * depth * (2 if name == "nv24" and done else 1)
        count = plane.height * wide // rows.shape[1]
        target[:, :wide] = rows[done : done + count].reshape(plane.height, wide)
        done += count
    return np.asarray(frame.to_ndarray(format="rgb24"))
