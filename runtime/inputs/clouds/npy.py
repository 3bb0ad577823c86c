"""NumPy's files: an array [P, 6], or an archive with points and colours."""

import io
import math
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from ...errors import BadInput

__all__ = ["read_npy", "read_npz"]

EXPECTED = "expected [P, 6] numbers (x, y, z, r, g, b)"
POINT_NAMES = ("points", "xyz", "coords", "positions", "vertices")
COLOUR_NAMES = ("colours", "colors", "rgb", "color", "colour")
# an archive that unpacks to more is none of measured points
MOST_RATIO = 100


def read_npy(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] and colours [P, 3] of an array [P, 6], in its own type.

    Raises:
        BadInput: it is no such array.
    """
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise BadInput("an archive of arrays, expected one plain .npy array; an archive's name ends in .npz")
        file.seek(0)
        return split(read_array(file, path.stat().st_size))


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same of an archive: of `points` and `colours` [P, 3] (or `xyz`, `rgb`, `colors`), or of one array [P, 6].

    Raises:
        BadInput: it holds neither.
    """
    named = {}
    try:
        # from memory: a damaged directory's size would be allocated for a file
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > MOST_RATIO * path.stat().st_size:
                raise BadInput(f"damaged; it would unpack to {unpacked} bytes, over {MOST_RATIO} times its own size")
            for member in archive.infolist():
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    # others may take memory that the file's size does not bound
                    raise BadInput(f"{member.filename} is packed in a way that NumPy does not use")
                content = io.BytesIO(archive.read(member))
                named[member.filename.removesuffix(".npy")] = read_array(content, member.file_size)
    except (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"not a readable .npz archive ({error})") from None
    points = [named[name] for name in POINT_NAMES if name in named]
    colours = [named[name] for name in COLOUR_NAMES if name in named]
    if points and colours:
        return require_three(points[0], "points"), require_three(colours[0], "colours")
    if len(named) == 1:
        return split(*named.values())
    raise BadInput(f"expected arrays points and colours, or one array [P, 6]; found {', '.join(named) or 'none'}")


def read_array(file: IO[bytes], size: int) -> np.ndarray:
    """An array of numbers out of a file of so many bytes; one that promises more is not allocated."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise BadInput(f"not a plain .npy array (version {version[0]}.{version[1]})")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError, SyntaxError, TypeError, RecursionError, MemoryError, TokenError) as error:
        raise BadInput(f"not a plain .npy array ({error})") from None
    if dtype.hasobject:
        raise BadInput("not a plain .npy array (it holds pickled objects)")
    if dtype.kind not in "fiu" or any(length < 0 for length in shape):
        raise BadInput(f"{EXPECTED}, found {list(shape)} {dtype}")
    count = math.prod(shape)
    if count * dtype.itemsize > size - file.tell():
        raise BadInput(f"not a plain .npy array (truncated: its header promises {list(shape)} {dtype})")
    if isinstance(file, io.BytesIO):
        values = np.frombuffer(file.getbuffer(), dtype, count, file.tell())
    else:
        values = np.fromfile(file, dtype, count)
    return values.reshape(shape, order="F" if fortran else "C")


def split(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and colours of an array [P, 6]."""
    found = f"found {list(array.shape)} {array.dtype}"
    if array.ndim != 2 or array.shape[1] < 3:
        raise BadInput(f"{EXPECTED}, {found}")
    if array.shape[1] != 6:
        missing = "no colours" if array.shape[1] < 6 else "more than six columns"
        raise BadInput(f"{missing}; expected [P, 6] (x, y, z, r, g, b), {found}")
    # whole columns side by side: what is done with them afterwards is quicker than with every other three numbers
    return np.ascontiguousarray(array[:, :3]), np.ascontiguousarray(array[:, 3:])


def require_three(array: np.ndarray, name: str) -> np.ndarray:
    """Raise BadInput unless an array is [P, 3]; a fourth column of colours is opacity, and is left out."""
    if array.ndim != 2 or array.shape[1] not in ((3, 4) if name == "colours" else (3,)):
        raise BadInput(f"{name}: expected [P, 3] numbers, found {list(array.shape)} {array.dtype}")
    return array[:, :3]
