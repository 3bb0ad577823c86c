"""The container of glTF 2.0: its JSON, its buffers, and arrays out of them."""

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from ...errors import BadInput

__all__ = ["Document"]

JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")


@dataclass(frozen=True)
class Document:
    """A glTF file.

    Attributes:
        path: the file; others that it names are looked for in its folder.
        tree: its JSON.
        binary: the binary chunk of a .glb file.
    """

    path: Path
    tree: dict[str, Any]
    binary: bytes | None

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Read a .glb or .gltf file; raises BadInput where it is none."""
        content = path.read_bytes()
        text, binary = content, None
        if content[:4] == b"glTF":
            text, binary = split_chunks(content)
        try:
            tree = json.loads(text.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise BadInput(f"not a readable GLB file (its JSON: {error})") from None
        if not isinstance(tree, dict):
            raise BadInput("not a readable GLB file (its JSON is no object)")
        return cls(path, tree, binary)

    def entry(self, kind: str, index: Any) -> dict[str, Any]:
        """One of the tree's lists' entries, as `entry("nodes", 3)`; raises BadInput unless it is there."""
        entries = self.tree.get(kind, [])
        if not isinstance(entries, list) or type(index) is not int or not 0 <= index < len(entries):
            raise BadInput(f"not a readable GLB file (it has no {kind}[{index!r}])")
        if not isinstance(entries[index], dict):
            raise BadInput(f"not a readable GLB file ({kind}[{index}] is no object)")
        return entries[index]

    def array(self, index: Any) -> np.ndarray:
        """The numbers of an accessor, [count, width] in their own type; integers that stand for 0..1 are not scaled.

        Raises:
            BadInput: it is not in the file, or is stored in a way that is not read.
        """
        accessor = self.entry("accessors", index)
        kind, width = COMPONENTS.get(accessor.get("componentType", 0)), WIDTHS.get(accessor.get("type", ""))
        if kind is None or width is None:
            raise BadInput(f"not a readable GLB file (accessors[{index}] has an unknown type)")
        if "sparse" in accessor:
            raise BadInput("it has sparse accessors, which are not read; export it without them")
        if "bufferView" not in accessor:
            raise BadInput(f"not a readable GLB file (accessors[{index}] has no data)")
        dtype, count = np.dtype(kind), whole_number(accessor, "count", 0)
        view = self.entry("bufferViews", accessor["bufferView"])
        data, start = self.view(accessor["bufferView"]), whole_number(accessor, "byteOffset", 0)
        row = dtype.itemsize * width
        stride = whole_number(view, "byteStride", 0) or row
        if stride < row or start + max(0, count - 1) * stride + row * (count > 0) > len(data):
            raise BadInput(f"not a readable GLB file (accessors[{index}] reaches beyond its data)")
        return np.ndarray((count, width), dtype, data, start, (stride, dtype.itemsize))

    def view(self, index: Any) -> memoryview:
        """The bytes of a buffer view; raises BadInput where they are not there, or compressed by meshopt."""
        view = self.entry("bufferViews", index)
        if isinstance(view.get("extensions"), dict) and (packed := [n for n in MESHOPT if n in view["extensions"]]):
            raise BadInput(f"compressed by meshopt ({packed[0]}), which is not read; export it without")
        data = self.buffers[self.buffer_index(view)]
        start, length = whole_number(view, "byteOffset", 0), whole_number(view, "byteLength", 0)
        if start + length > len(data):
            raise BadInput(f"not a readable GLB file (bufferViews[{index}] reaches beyond its buffer; truncated?)")
        return data[start : start + length]

    def buffer_index(self, view: dict[str, Any]) -> int:
        """Which buffer a view is of; raises BadInput where there is none."""
        self.entry("buffers", view.get("buffer"))
        return int(view["buffer"])

    @cached_property
    def buffers(self) -> "Buffers":
        """Their bytes by index, read when they are asked for."""
        return Buffers(self)


class Buffers:
    """The buffers of a document: its binary chunk, data in the JSON, and files beside it."""

    def __init__(self, document: Document):
        """Read nothing yet."""
        self._document, self._read = document, dict[int, memoryview]()

    def __getitem__(self, index: int) -> memoryview:
        """Raises BadInput where a buffer is not there."""
        if index not in self._read:
            self._read[index] = memoryview(self.content(index))
        return self._read[index]

    def content(self, index: int) -> bytes:
        """The bytes of a buffer."""
        document = self._document
        uri = document.entry("buffers", index).get("uri")
        if uri is None:
            if index or document.binary is None:
                raise BadInput(f"not a readable GLB file (buffers[{index}] has no data)")
            return document.binary
        if not isinstance(uri, str):
            raise BadInput(f"not a readable GLB file (buffers[{index}] names no file)")
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except (binascii.Error, ValueError) as error:
                raise BadInput(f"not a readable GLB file (buffers[{index}]: {error})") from None
        name = unquote(uri)
        if ":" in name or name.startswith("/") or ".." in name or "\0" in name:
            raise BadInput(f"its data is elsewhere, in {name[:80]!r}; it has to be in a file beside it")
        file = document.path.parent / name
        if not file.is_file():
            raise BadInput(f"its data is in {name[:80]!r}, which is not beside it")
        return file.read_bytes()


def split_chunks(content: bytes) -> tuple[bytes, bytes | None]:
    """The JSON and the binary chunk of a .glb file."""
    if len(content) < 20:
        raise BadInput("not a readable GLB file (it ends within its header)")
    _, version, _, length, kind = struct.unpack_from("<4s4I", content)
    if version != 2:
        raise BadInput(f"not a readable GLB file (version {version}, expected 2)")
    if kind != JSON_CHUNK or 20 + length > len(content):
        raise BadInput("not a readable GLB file (its first chunk is not JSON, or is truncated)")
    text, rest = content[20 : 20 + length], 20 + length
    if rest + 8 > len(content):
        return text, None
    length, kind = struct.unpack_from("<2I", content, rest)
    return text, content[rest + 8 : rest + 8 + length] if kind == BINARY_CHUNK else None


def whole_number(entry: dict[str, Any], name: str, default: int) -> int:
    """A field that has to be a whole number from 0 on; raises BadInput where it is not."""
    value = entry.get(name, default)
    if type(value) is not int or value < 0:
        raise BadInput(f"not a readable GLB file ({name} is {str(value)[:40]})")
    return value
