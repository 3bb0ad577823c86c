"""PCD files of PCL: text, binary, and compressed with LZF."""

import io
import logging
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import BadInput
from .columns import to_cloud
from .rows import parse_rows, require_bytes

__all__ = ["read_pcd"]

LOG = logging.getLogger(__name__)
LONGEST_HEADER = 1 << 16
END = re.compile(rb"(?:^|\n)DATA[ \t]+(\w+)[ \t]*\r?\n")
KINDS = {"F": "f", "I": "i", "U": "u"}
SENSOR_AT_ORIGIN = ["0", "0", "0", "1", "0", "0", "0"]
# a back-reference of three bytes stands for so many at most
LZF_RATIO = 264 / 3


@dataclass(frozen=True)
class Layout:
    """What a header says.

    Attributes:
        points: how many there are.
        names: of the fields.
        dtypes: of a number of each.
        counts: numbers of each field in a point.
    """

    points: int
    names: list[str]
    dtypes: list[np.dtype]
    counts: list[int]

    @property
    def sizes(self) -> list[int]:
        """Bytes of each field in a point."""
        return [dtype.itemsize * count for dtype, count in zip(self.dtypes, self.counts, strict=True)]


def read_pcd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] and colours [P, 3], in their own types; padding and fields of several numbers are passed over.

    Raises:
        BadInput: it is no PCD file with coloured points.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
        end = END.search(head)
        if end is None:
            raise BadInput("not a readable PCD file (it lacks a header up to DATA)")
        layout = parse_header(head[: end.start()].decode("latin-1"), str(path))
        file.seek(end.end())
        match end[1]:
            case b"ascii":
                return to_cloud(text_columns(file, layout))
            case b"binary":
                return to_cloud(binary_columns(file, layout))
            case b"binary_compressed":
                return to_cloud(unpacked_columns(file, layout))
        raise BadInput(f"not a readable PCD file (its data are {end[1].decode()})")


def parse_header(text: str, path: str) -> Layout:
    """Raises BadInput unless the header is whole and of one piece."""
    lines = (line.split() for line in text.splitlines())
    known = {words[0].upper(): words[1:] for words in lines if words and not words[0].startswith("#")}
    names, sizes, kinds = (known.get(name, []) for name in ("FIELDS", "SIZE", "TYPE"))
    counts = known.get("COUNT", ["1"] * len(names))
    try:
        width, height = (int(*known[name]) for name in ("WIDTH", "HEIGHT"))
        points = int(*known["POINTS"]) if "POINTS" in known else width * height
        dtypes = [np.dtype(f"{KINDS[kind]}{int(size)}") for kind, size in zip(kinds, sizes, strict=True)]
        layout = Layout(points, names, dtypes, [int(count) for count in counts])
    except (KeyError, ValueError, TypeError) as error:
        raise BadInput(f"not a readable PCD file (its header: {error})") from None
    lengths = {len(names), len(dtypes), len(layout.counts)}
    if len(lengths) > 1 or not names or points < 0 or min(layout.counts) < 0 or max(layout.counts) > LONGEST_HEADER:
        raise BadInput("not a readable PCD file (FIELDS, SIZE, TYPE and COUNT of its header do not agree)")
    if known.get("VIEWPOINT", SENSOR_AT_ORIGIN) != SENSOR_AT_ORIGIN:
        LOG.info("point cloud %s: points are taken as they are; VIEWPOINT says where the sensor was", path)
    return layout


def text_columns(file: BinaryIO, layout: Layout) -> dict[str, np.ndarray]:
    """Columns of a text file in the types that the header gives."""
    width = sum(layout.counts)
    require_bytes(file, 2 * layout.points * width - 1, f"{layout.points} points as text")
    rows = parse_rows(io.TextIOWrapper(file, "latin-1"), columns=width, count=layout.points)
    if len(rows) < layout.points:
        raise BadInput(f"not a readable PCD file (it ends after {len(rows)} of {layout.points} points)")
    places = np.cumsum([0, *layout.counts])
    columns = {}
    for name, dtype, count, place in zip(layout.names, layout.dtypes, layout.counts, places, strict=False):
        if count == 1:
            # PCL writes packed colours of a float field as whole numbers too
            whole = name in ("rgb", "rgba") and (rows[:, place] == np.round(rows[:, place])).all()
            with np.errstate(all="ignore"):
                columns[name] = rows[:, place].astype(np.uint32 if whole else dtype)
    return columns


def binary_columns(file: BinaryIO, layout: Layout) -> dict[str, np.ndarray]:
    """Columns of points that stand one after the other."""
    places, row = np.cumsum([0, *layout.sizes]), sum(layout.sizes)
    require_bytes(file, layout.points * row, f"{layout.points} points of {row} bytes")
    single = [at for at, count in enumerate(layout.counts) if count == 1]
    names = [f"{at} {layout.names[at]}" for at in single]
    formats, offsets = [layout.dtypes[at] for at in single], [int(places[at]) for at in single]
    kind = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": row})
    rows = np.fromfile(file, kind, layout.points)
    return {layout.names[at]: rows[name] for at, name in zip(single, names, strict=True)}


def unpacked_columns(file: BinaryIO, layout: Layout) -> dict[str, np.ndarray]:
    """Columns that stand one after the other, compressed together."""
    require_bytes(file, 8, "two sizes")
    packed_size, size = struct.unpack("<2I", file.read(8))
    require_bytes(file, packed_size, f"{packed_size} compressed bytes")
    if size != layout.points * sum(layout.sizes) or size > LZF_RATIO * packed_size:
        raise BadInput(f"damaged; it holds {size} bytes, the header promises {layout.points} points")
    content = unpack_lzf(file.read(packed_size), size)
    columns, place = {}, 0
    for name, dtype, count, length in zip(layout.names, layout.dtypes, layout.counts, layout.sizes, strict=True):
        if count == 1:
            columns[name] = np.frombuffer(content, dtype, layout.points, place)
        place += layout.points * length
    return columns


def unpack_lzf(packed: bytes, size: int) -> bytes:
    """What LZF has packed into so many bytes; raises BadInput where they are another number.

    A control byte below 32 precedes so many bytes and one; others say how far back to copy from, and how many.
    """
    out, place = bytearray(), 0
    try:
        while place < len(packed) and len(out) <= size:
            control = packed[place]
            place += 1
            if control < 32:
                out += packed[place : place + control + 1]
                place += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[place]
                place += 1
            start = len(out) - ((control & 31) << 8) - packed[place] - 1
            place, length = place + 1, length + 2
            if start < 0:
                raise BadInput("damaged; its compressed bytes refer to what is not there")
            # a copy may reach into what it writes
            seed = bytes(out[start : start + length])
            out += (seed * (-(-length // len(seed))))[:length]
    except IndexError:
        raise BadInput("damaged; its compressed bytes end too early") from None
    if len(out) != size:
        raise BadInput(f"damaged; its compressed bytes unpack to {len(out)}, expected {size}")
    return bytes(out)
