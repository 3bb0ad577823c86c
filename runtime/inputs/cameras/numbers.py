"""Rows of numbers in text, as people and programs write them."""

import codecs
import re
from pathlib import Path

from ...errors import BadInput

__all__ = ["decode", "parse_rows", "read_bytes", "read_rows"]

# longer ones first: the mark of UTF-32 begins with that of UTF-16
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
COMMENT = re.compile(r"(#|%|//).*")
# what NumPy prints around an array
WORDS = re.compile(r"\b(?:(?:np|numpy)\.)?(?:array|matrix|asarray)\b|,?\s*\bdtype\s*=\s*[\w.]+")
FORTRAN = re.compile(r"(?<=[\d.])[dD](?=[+-]?\d)")
BETWEEN = str.maketrans({**dict.fromkeys("[](){},;|", " "), "\N{MINUS SIGN}": "-"})


def read_rows(path: Path, source: str, most: int | None = None) -> list[list[float]]:
    """The rows of numbers of a text file; `source` is what an error names it.

    Args:
        path: the file.
        source: for messages.
        most: bytes that it may hold at most; None for any.

    Raises:
        BadInput: it is not there, holds more, or holds something else than numbers.
    """
    data = read_bytes(path, source, most)
    try:
        return parse_rows(decode(data))
    except ValueError as error:
        raise BadInput(f"{source}: not a matrix of numbers ({error})") from None


def read_bytes(path: Path, source: str, most: int | None = None) -> bytes:
    """What a file holds; raises BadInput where it is not there or holds more than `most` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read() if most is None else file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise BadInput(f"{source}: no such file") from None
    except OSError as error:
        raise BadInput(f"{source}: cannot be read ({error.strerror})") from None
    if most is not None and len(data) > most:
        raise BadInput(f"{source}: holds over {most:,} bytes, which is no single matrix")
    return data


def decode(data: bytes) -> str:
    """Text of any of the usual encodings; letters of comments may come out wrong, digits do not."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    if data[1:2] == b"\0":
        return data.decode("utf-16-le", "replace")
    if data[:1] == b"\0":
        return data.decode("utf-16-be", "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse_rows(text: str) -> list[list[float]]:
    """Rows of numbers between spaces, tabs, commas, semicolons or brackets, without comments; raises ValueError."""
    lines = text.splitlines()
    try:
        return [row for line in lines if (row := [to_number(word) for word in line.split()])]
    except ValueError:
        pass  # not plain: commas, comments, brackets
    text = FORTRAN.sub("e", WORDS.sub(" ", "\n".join(COMMENT.sub("", line) for line in lines)))
    # a row in brackets may go over several lines
    rows = text.split("]") if "[" in text else text.splitlines()
    return [row for line in rows if (row := [to_number(word) for word in line.translate(BETWEEN).split()])]


def to_number(word: str) -> float:
    """Python's own float takes digits with `_` between them, which are names."""
    if "_" in word:
        raise ValueError(f"could not convert string to float: {word!r}")
    return float(word)
