"""Points as rows of text: .xyz, .txt, .csv, .asc, .pts."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np

from ...errors import BadInput
from .columns import to_cloud
from .rows import parse_rows

__all__ = ["read_text"]

# columns of files that do not name them
UNNAMED = {6: ("x", "y", "z", "red", "green", "blue")}
UNNAMED_PTS = {7: ("x", "y", "z", "intensity", "red", "green", "blue"), **UNNAMED}
COMMENT = ("#", "//")
MOST_COMMENTS, LONGEST_LINE = 100, 10_000
ADVICE = "name the columns in the first line, as in `x y z red green blue`"


def read_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] and colours [P, 3] float64 of rows between white space, commas or semicolons.

    A first line of names, which may begin with # or //, says what the columns are; without it they are x y z r g b,
    and in a .pts file of seven columns x y z intensity r g b. A first line with nothing but the number of points is
    passed over.

    Raises:
        BadInput: it holds no such rows.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        names, first = preamble(file)
        separator = next((mark for mark in ",;" if mark in first), None)
        rows = parse_rows(chain([first], without_comments(file)), separator=separator)
    width = rows.shape[1]
    unnamed = UNNAMED_PTS if path.suffix.lower() == ".pts" else UNNAMED
    if names is None:
        if width not in unnamed:
            missing = "no colours" if width < 6 else "more than six columns"
            raise BadInput(f"{missing}; expected rows x y z r g b, found {width} columns; {ADVICE}")
        names = unnamed[width]
    if len(names) != width:
        raise BadInput(f"its first line names {len(names)} columns, but its rows hold {width} numbers; {ADVICE}")
    return to_cloud(dict(zip(names, rows.T, strict=True)))


def preamble(file: TextIO) -> tuple[tuple[str, ...] | None, str]:
    """The columns' names, if they are there, and the first row of numbers."""
    names: tuple[str, ...] | None = None
    for _ in range(MOST_COMMENTS):
        line = file.readline(LONGEST_LINE)
        if not line:
            break
        comment = line.lstrip().startswith(COMMENT)
        words = tuple(re.split(r"[\s,;]+", line.strip().lstrip("#/ \t").strip('"')))
        lower = [word.strip('"').lower() for word in words]
        if {"x", "y", "z"} <= set(lower):
            names = tuple(lower)
        elif not comment and line.strip() and not (len(words) == 1 and words[0].isdigit()):
            return names, line
    raise BadInput(f"holds no rows of numbers among its first {MOST_COMMENTS} lines")


def without_comments(file: TextIO) -> Iterator[str]:
    return (line for line in file if not line.lstrip().startswith(COMMENT))
