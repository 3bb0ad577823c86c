"""PLY files: text, and binary of both byte orders; only the vertices are read."""

import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import BadInput
from .columns import to_cloud
from .rows import parse_rows, require_bytes

__all__ = ["read_ply"]

BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float": "f4",
    "double": "f8",
    "float32": "f4",
    "float64": "f8",
    "int64": "i8",
    "uint64": "u8",
}
LONGEST_HEADER = 1 << 20
END = re.compile(rb"(?:\n|\r)end_header[ \t]*(\r\n|\n|\r)")


@dataclass
class Element:
    """A kind of rows: how many there are, and what each holds.

    Attributes:
        name: `vertex` for points.
        count: rows.
        properties: name and type of each; a list has the types of its length and of its items, as `(u1, i4)`.
    """

    name: str
    count: int
    properties: list[tuple[str, str | tuple[str, str]]] = field(default_factory=list)

    @property
    def listed(self) -> bool:
        """Whether rows differ in length."""
        return any(isinstance(kind, tuple) for _, kind in self.properties)

    def row(self, order: str) -> np.dtype:
        """A row without lists, in a byte order."""
        return np.dtype([(name, order + str(kind)) for name, kind in self.properties])


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] and colours [P, 3] of the vertices, in their own types.

    What the header promises is held against the file's size before anything is allocated for it.

    Raises:
        BadInput: it is no PLY file with coloured points.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
        end = END.search(head)
        if not head.startswith(b"ply") or end is None:
            raise BadInput("not a readable PLY file (it lacks a header from `ply` to `end_header`)")
        # the letters of a comment never matter, whatever their encoding
        order, elements = parse_header(head[: end.start()].decode("latin-1"))
        names = [element.name for element in elements]
        if "vertex" not in names:
            raise BadInput("not a readable PLY file (it has no vertices)")
        before, vertex = elements[: names.index("vertex")], elements[names.index("vertex")]
        if vertex.listed:
            raise BadInput("its vertices hold lists, expected a number a property")
        file.seek(end.end())
        if order == "=":
            return to_cloud(text_columns(file, sum(element.count for element in before), vertex))
        for element in before:
            skip(file, element, order)
        row = vertex.row(order)
        require_bytes(file, vertex.count * row.itemsize, f"{vertex.count} vertices of {row.itemsize} bytes")
        rows = np.fromfile(file, row, vertex.count)
        return to_cloud({name: rows[name] for name in row.names or ()})


def parse_header(text: str) -> tuple[str, list[Element]]:
    """Byte order and elements; raises BadInput for a line that is not known."""
    order, elements = "", list[Element]()
    for line in re.split(r"[\r\n]+", text)[1:]:
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", kind, *_] if kind in BYTE_ORDERS:
                order = BYTE_ORDERS[kind]
            case ["element", name, count] if re.fullmatch(r"[0-9]{1,18}", count):
                elements.append(Element(name, int(count)))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1].properties.append((name, TYPES[kind]))
            case ["property", "list", length, item, name] if elements and {length, item} <= TYPES.keys():
                elements[-1].properties.append((name, (TYPES[length], TYPES[item])))
            case _:
                raise BadInput(f"not a readable PLY file (the header's line {line[:80]!r} is not known)")
    for element in elements:
        names = [name for name, _ in element.properties]
        if not names or len(set(names)) < len(names):
            raise BadInput(f"not a readable PLY file (its {element.name} has no property, or one twice)")
    if not order:
        raise BadInput("not a readable PLY file (it has no format)")
    return order, elements


def text_columns(file: BinaryIO, before: int, vertex: Element) -> dict[str, np.ndarray]:
    """The vertices' columns in a text file, in the types that the header gives them."""
    require_bytes(file, 2 * (before + vertex.count * len(vertex.properties)) - 1, f"{vertex.count} vertices as text")
    for _ in range(before):
        file.readline()
    rows = parse_rows(io.TextIOWrapper(file, "latin-1"), columns=len(vertex.properties), count=vertex.count)
    if len(rows) < vertex.count:
        raise BadInput(f"not a readable PLY file (it ends after {len(rows)} of {vertex.count} vertices)")
    columns = {}
    for (name, kind), values in zip(vertex.properties, rows.T, strict=True):
        with np.errstate(all="ignore"):
            column = values.astype(str(kind))
        if column.dtype.kind in "iu" and not (column == values).all():
            raise BadInput(f"not a readable PLY file (its {name} does not fit the type that the header gives)")
        columns[name] = column
    return columns


def skip(file: BinaryIO, element: Element, order: str) -> None:
    """Pass over the rows of an element in a binary file."""
    if not element.listed:
        size = element.count * element.row(order).itemsize
        require_bytes(file, size, f"{element.count} rows of {element.name}")
        file.seek(size, io.SEEK_CUR)
        return
    require_bytes(file, element.count, f"{element.count} rows of {element.name}")
    for _ in range(element.count):
        for _, kind in element.properties:
            if isinstance(kind, str):
                file.seek(np.dtype(kind).itemsize, io.SEEK_CUR)
                continue
            length, item = (np.dtype(order + part) for part in kind)
            stored = file.read(length.itemsize)
            if len(stored) < length.itemsize:
                raise BadInput(f"not a readable PLY file (it ends among the rows of {element.name})")
            file.seek(max(0, int(np.frombuffer(stored, length)[0])) * item.itemsize, io.SEEK_CUR)
