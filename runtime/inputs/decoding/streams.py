"""The video stream of a file: which frames are shown, when, and how they are turned."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import BadInput

__all__ = ["TURNS", "UPRIGHT", "Stream", "Unreadable", "decode_all", "open_video", "probe_video", "turned"]

LOG = logging.getLogger(__name__)
# twice those of 8K; a header may claim anything
MOST_PIXELS = 1 << 26
# frames that are decoded to see whether packets and frames agree
CHECKED = 12
# streams without a container, whose times are made up
BARE = {"h264", "hevc", "vvc", "mpegvideo", "m4v", "mjpeg", "obu", "vc1", "cavsvideo", "dirac"}
# deviation from a constant rate that is rounding, seconds
ROUNDING = 1e-3
UPRIGHT = (1, 0, 0, 1)
# what a phone writes for each quarter turn counterclockwise, as the signs of a display matrix
TURNS: dict[tuple[int, ...], int] = {UPRIGHT: 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}
MATRIX_BYTES = 36
BOXES = (b"ftyp", b"mdat", b"free", b"wide", b"skip")
MOST_BOXES, MOST_BYTES = 1000, 1 << 60
VP8_SHOWN = 0x10
# units of an H.264 picture: a part of one, and of one that depends on none before it; types of parts that are intra
SLICE, WHOLE_SLICE, INTRA = 1, 5, (2, 7)
SLICE_HEADER = 12


class Unreadable(Exception):
    """FFmpeg cannot read a file, and why."""


class Packet(NamedTuple):
    """A packet of a stream.

    Attributes:
        pts: when its frame is shown.
        duration: for how long, 0 where it is not known.
        key: whether a decoder can begin here.
        clean: whether all that follows is exact then.
    """

    pts: int | None
    duration: int
    key: bool
    clean: bool


@dataclass(frozen=True)
class Stream:
    """The frames of a video file that are shown.

    Attributes:
        count: how many.
        size: width and height as they are stored, pixels.
        matrix: signs of a, b, c, d, which show pixel (x, y) at (ax + cy, bx + dy).
        rate: frames a second on average, where the file says it.
        times: seconds of each frame since the first, where the rate varies.
        last: how long the last frame is shown, seconds; 0 where it is not known.
        pts: presentation time stamp of each frame, ascending; empty where they cannot be told apart.
        keys: those of keyframes, ascending.
        starts: for each keyframe, the one at or before it from which all frames are exact.
    """

    count: int
    size: tuple[int, int]
    matrix: tuple[int, ...]
    rate: float | None
    times: tuple[float, ...] | None
    last: float
    pts: tuple[int, ...]
    keys: tuple[int, ...]
    starts: tuple[int, ...]


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """A file's container, and its first video stream that is no cover picture; raises Unreadable from here on."""
    import av

    try:
        options = {"protocol_whitelist": "file"}
        # with the protocol's name, a colon in a file's name is a letter like others
        with av.open(f"file:{path}", options=options, metadata_errors="ignore") as container:
            covers = av.stream.Disposition.attached_pic
            stream = next((found for found in container.streams.video if not found.disposition & covers), None)
            if stream is None:
                raise BadInput(f"video {path}: holds no video stream")
            if stream.codec_context is None:
                raise BadInput(f"video {path}: its codec is not known; convert it to H.264")
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise Unreadable(str(error.strerror or error)) from None


def probe_video(path: Path) -> Stream:
    """Find the frames of a video file; packets are counted, and decoded only where they are not frames one for one.

    Raises:
        BadInput: it cannot be read, or nothing in it can be decoded.
    """
    try:
        with open_video(path) as (container, stream):
            packets, first = read_packets(container, stream)
            warn_of(path, container, stream)
            shown: Sequence[int | None] = shown_times(packets, first) if first else ()
            if not shown:
                LOG.debug("video %s: packets are not frames one for one, so all are decoded once", path)
                with open_video(path) as (again, same):
                    shown = [frame.pts for frame in decode_all(again, same)]
            if not first or not shown:
                raise BadInput(f"video {path}: holds no frames that can be decoded")
            start = shown[0]
            if skipped := sum(
                start is not None and packet.pts is not None and packet.pts < start for packet in packets
            ):
                LOG.warning(
                    "video %s: begins without a keyframe; %d frames cannot be decoded, and the one after them is the "
                    "first",
                    path,
                    skipped,
                )
            return described(container, stream, packets, first[0], shown)
    except Unreadable as error:
        raise BadInput(f"video {path}: {reason(path, error)}") from None


def read_packets(container: Any, stream: Any) -> tuple[list[Packet], list[Any]]:
    """The packets that are shown, and the first frames that decode."""
    packets: list[Packet] = []
    first: list[Any] = []
    codec = stream.codec_context
    for packet in packets_of(container, stream):
        if len(first) < CHECKED:
            first += decoded(packet)
        # an edit list hides packets that are decoded and not shown; VP8 has such frames itself
        hidden = packet.is_discard or (codec.name == "vp8" and not is_shown(packet))
        if packet.size and not packet.is_corrupt and not hidden:
            key = packet.is_keyframe
            clean = key and (codec.name != "h264" or is_whole(bytes(packet), codec.extradata or b""))
            packets.append(Packet(packet.pts, packet.duration or 0, key, clean))
    return packets, first[:CHECKED]


def is_shown(packet: Any) -> bool:
    return bool(packet.size and memoryview(packet)[0] & VP8_SHOWN)


def is_whole(data: bytes, extradata: bytes) -> bool:
    """Whether an H.264 keyframe is a whole picture; there are others, from which a picture heals bit by bit."""
    for unit in units(data, extradata):
        kind = unit[0] & 0x1F
        if kind == SLICE:
            # two numbers of as many bits after their first 1 as there are 0 before it: the first block, the type
            bits = "".join(f"{byte:08b}" for byte in unit[1:SLICE_HEADER])
            zeros = bits.find("1")
            second = bits[2 * zeros + 1 :]
            zeros = max(0, second.find("1"))
            return int(second[zeros : 2 * zeros + 1] or "0", 2) - 1 in INTRA
        if kind == WHOLE_SLICE:
            return True
    return False


def units(data: bytes, extradata: bytes) -> Iterator[bytes]:
    """The beginnings of the units in an H.264 packet."""
    if extradata[:1] != b"\1":
        yield from (unit[:SLICE_HEADER] for unit in data.split(b"\0\0\1")[1:] if unit)
        return
    # as in MP4: lengths before the units
    width, place = (extradata[4] & 3) + 1 if len(extradata) > 4 else 4, 0
    while place + width < len(data):
        start = place + width
        yield data[start : start + SLICE_HEADER]
        place = start + int.from_bytes(data[place:start], "big")


def packets_of(container: Any, stream: Any) -> Iterator[Any]:
    """All packets, the last of them empty; a container that cannot be read on ends there."""
    import av

    with suppress(av.FFmpegError):
        yield from container.demux(stream)


def decoded(packet: Any) -> list[Any]:
    """The frames that a packet completes; none where it cannot be decoded."""
    import av

    try:
        frames: list[Any] = packet.decode()
    except av.FFmpegError:
        return []
    return frames


def decode_all(container: Any, stream: Any) -> Iterator[Any]:
    """All frames that can be decoded."""
    for packet in packets_of(container, stream):
        yield from decoded(packet)


def shown_times(packets: list[Packet], first: list[Any]) -> list[int]:
    """Time stamps of all frames from the first that decodes; empty where the packets do not tell them."""
    start = first[0].pts
    if start is None or any(packet.pts is None for packet in packets):
        return []
    shown = sorted(packet.pts for packet in packets if packet.pts is not None and packet.pts >= start)
    agree = [frame.pts for frame in first] == shown[: len(first)] and len(set(shown)) == len(shown)
    return shown if agree and len(first) >= min(CHECKED, len(shown)) else []


def described(container: Any, stream: Any, packets: list[Packet], first: Any, shown: Sequence[int | None]) -> Stream:
    """What is known of a stream whose frames are shown at these times."""
    rate = float(stream.average_rate) if stream.average_rate and container.format.name not in BARE else None
    stamps = [pts for pts in shown if pts is not None]
    ascending = len(stamps) == len(shown) and all(before < after for before, after in pairwise(stamps))
    pts = tuple(stamps) if ascending and container.format.name not in BARE else ()
    keys = tuple(sorted(p.pts for p in packets if p.key and p.pts is not None and pts and p.pts >= pts[0]))
    clean = {packet.pts for packet in packets if packet.clean}
    starts: Iterator[int] = accumulate(keys, lambda before, key: key if key in clean else before)
    times = tuple(float((stamp - pts[0]) * stream.time_base) for stamp in pts)
    even = rate is not None and all(abs(time - place / rate) <= ROUNDING for place, time in enumerate(times))
    return Stream(
        count=len(shown),
        size=(first.width, first.height),
        matrix=display_matrix(first),
        rate=rate,
        times=None if even or not pts else times,
        last=float(sum(p.duration for p in packets if pts and p.pts == pts[-1]) * stream.time_base),
        pts=pts,
        keys=keys,
        starts=tuple(starts),
    )


def display_matrix(frame: Any) -> tuple[int, ...]:
    """Signs of a frame's display matrix; upright where it has none, or one that is no quarter turn."""
    found = [bytes(data)[:MATRIX_BYTES] for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
    if not found or len(found[0]) < MATRIX_BYTES:
        return UPRIGHT
    a, b, _, c, d = np.sign(np.frombuffer(found[0], "<i4"))[:5].tolist()
    return (a, b, c, d) if (a, d) == (0, 0) != (b, c) or (b, c) == (0, 0) != (a, d) else UPRIGHT


def turned(pixels: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    """Pixels [H, W, 3] as a display matrix shows them."""
    a, b, c, d = matrix
    if a == 0:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[:: -1 if b + d < 0 else 1, :: -1 if a + c < 0 else 1])


def warn_of(path: Path, container: Any, stream: Any) -> None:
    """Say what is in a file that is not taken from it, or is missing."""
    if len(container.streams.video) > 1:
        LOG.info("video %s: the first of %d video streams is taken", path, len(container.streams.video))
    if "mp4" in container.format.name and any(end > path.stat().st_size for _, end in top_boxes(path)):
        LOG.warning("video %s: is cut off; frames at its end are missing", path)
    shape = stream.sample_aspect_ratio
    if shape and shape != 1:
        LOG.warning(
            "video %s: its pixels are %s times as wide as high; taken as they are stored, as K has to be", path, shape
        )


def reason(path: Path, error: Unreadable) -> str:
    """Why a file cannot be opened."""
    boxes = [kind for kind, _ in top_boxes(path)]
    if boxes and boxes[0] in BOXES and b"moov" not in boxes:
        return (
            "the recording was not closed, or is cut off, so that its index (moov) is missing; recover it with a "
            "working file of the same recorder (untrunc)"
        )
    return f"unreadable ({error})"


def top_boxes(path: Path) -> list[tuple[bytes, int]]:
    """Types of the boxes that an MP4 consists of, and where each ends."""
    boxes: list[tuple[bytes, int]] = []
    start = 0
    with path.open("rb") as file:
        while len(boxes) < MOST_BOXES and len(header := file.read(16)) >= 8:
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if size == 1:
                size = int.from_bytes(header[8:], "big")
            boxes.append((kind, start + size))
            if size < 8 or size > MOST_BYTES:
                break
            start += size
            file.seek(start)
    return boxes
