"""LAS files, as laser scanners and surveyors write them, and LAZ, which `lazrs` unpacks."""

import struct
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...errors import BadInput, MissingDependency
from .rows import require_bytes

__all__ = ["read_las"]

# where red, green and blue are in the points of each format that has them
COLOURS_AT = {2: 20, 3: 28, 5: 28, 7: 30, 8: 30, 10: 30}
SMALLEST_HEADER, RECORD_HEADER = 227, 54
LASZIP = (b"laszip encoded", 22204)
# LAZ makes points a twentieth at best
MOST_RATIO = 100


@dataclass(frozen=True)
class Header:
    """What a LAS file says of its points.

    Attributes:
        form: of the points, 0 to 10.
        compressed: whether it is LAZ.
        count: points.
        row: bytes of a point.
        begin: where in the file they begin.
        records: variable length records that stand before them.
        size: of the header.
        scale: [3] float64, metres a step of the stored integers.
        offset: [3] float64, metres.
    """

    form: int
    compressed: bool
    count: int
    row: int
    begin: int
    records: int
    size: int
    scale: np.ndarray
    offset: np.ndarray

    @classmethod
    def read(cls, file: BinaryIO) -> "Header":
        """Raises BadInput where a file does not begin as LAS does."""
        block = file.read(375)
        if len(block) < SMALLEST_HEADER or block[:4] != b"LASF":
            raise BadInput("not a readable LAS file (it lacks a header)")
        size, begin, records, kind, row, count = struct.unpack_from("<HIIBHI", block, 94)
        numbers = np.frombuffer(block, "<f8", 6, 131)
        # version 1.4 counts in 64 bits, and leaves the older count empty where it does not reach
        if block[25] >= 4 and len(block) >= 255:
            count = struct.unpack_from("<Q", block, 247)[0] or count
        if not np.isfinite(numbers).all() or (numbers[:3] == 0).any() or not SMALLEST_HEADER <= size <= begin:
            raise BadInput("not a readable LAS file (its header is damaged)")
        return cls(kind & 63, kind >= 64, count, row, begin, records, size, numbers[:3], numbers[3:])


def read_las(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] float64, with the file's scales and offsets applied, and colours [P, 3] uint16.

    Raises:
        BadInput: it is no LAS or LAZ file with coloured points.
        MissingDependency: it is LAZ, and lazrs is not installed.
    """
    with path.open("rb") as file:
        header = Header.read(file)
        if header.form not in COLOURS_AT:
            known = ", ".join(map(str, COLOURS_AT))
            raise BadInput(f"no colours; points of format {header.form} have none, expected one of {known}")
        at = COLOURS_AT[header.form]
        if header.row < at + 6:
            raise BadInput(f"not a readable LAS file (points of format {header.form} in {header.row} bytes)")
        size, promised = header.count * header.row, f"{header.count} points of {header.row} bytes"
        if header.compressed:
            if size > MOST_RATIO * path.stat().st_size:
                raise BadInput(f"truncated or damaged; the header promises {promised}")
            content: bytes | bytearray = unpack(file, header, str(path))
        else:
            file.seek(header.begin)
            require_bytes(file, size, promised)
            content = file.read(size)
    fields: Any = {"names": ["xyz", "rgb"], "formats": ["3<i4", "3<u2"], "offsets": [0, at], "itemsize": header.row}
    rows: Any = np.frombuffer(content, np.dtype(fields), header.count)
    return rows["xyz"] * header.scale + header.offset, rows["rgb"]


def unpack(file: BinaryIO, header: Header, path: str) -> bytearray:
    """The points of a LAZ file as in a LAS file."""
    try:
        import lazrs
    except ImportError as error:
        advice = "pip install 'stllm-edge[formats]', or convert it to LAS"
        raise MissingDependency(f"point cloud {path}: LAZ needs lazrs ({error}); {advice}") from None
    how = laszip_record(file, header)
    require_chunk_table(file, header)
    file.seek(header.begin)
    content = bytearray(header.count * header.row)
    try:
        lazrs.LasZipDecompressor(file, how).decompress_many(content)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # its panics are no Exception
        raise BadInput(f"truncated or damaged; its points do not unpack ({error})") from None
    return content


def laszip_record(file: BinaryIO, header: Header) -> bytes:
    """The record that says how points are packed; raises BadInput unless it is there and fits their size."""
    file.seek(header.size)
    for _ in range(min(header.records, (header.begin - header.size) // RECORD_HEADER)):
        _, user, number, length = struct.unpack("<H16sHH", exactly(file, 22))
        file.seek(RECORD_HEADER - 22, SEEK_CUR)
        content = exactly(file, length)
        if (user.rstrip(b"\0"), number) == LASZIP and length >= 34:
            (items,) = struct.unpack_from("<H", content, 32)
            if length < 34 + 6 * items:
                break
            sizes = [struct.unpack_from("<H", content, 36 + 6 * item)[0] for item in range(items)]
            if sum(sizes) != header.row:
                break
            return content
    raise BadInput("not a readable LAZ file (it lacks a record that says how its points are packed)")


def require_chunk_table(file: BinaryIO, header: Header) -> None:
    """Raise BadInput unless the table of chunks is one that the file has room for: lazrs allocates what it promises."""
    file.seek(header.begin)
    (place,) = struct.unpack("<q", exactly(file, 8))
    end = file.seek(0, SEEK_END)
    if place == -1:
        # what is written without going back has the place at its end
        file.seek(end - 8)
        (place,) = struct.unpack("<q", exactly(file, 8))
    if not header.begin + 8 <= place <= end - 8:
        raise BadInput("truncated or damaged; its table of chunks is not there")
    file.seek(place + 4)
    (chunks,) = struct.unpack("<I", exactly(file, 4))
    if chunks > end:
        raise BadInput(f"truncated or damaged; it promises {chunks} chunks")


def exactly(file: BinaryIO, size: int) -> bytes:
    """So many bytes; raises BadInput where the file ends before."""
    content = file.read(size)
    if len(content) < size:
        raise BadInput("not a readable LAZ file (truncated)")
    return content
