"""One layer of a GGUF file as a model of its own, in memory: real weights of real widths, small enough to be timed."""

import mmap
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import BadBundle

__all__ = ["ROWS", "first_layer_file", "layer_file"]

# of the excerpt's embedding matrix
ROWS = 32
# of tensors where the metadata has no `general.alignment`
ALIGNMENT = 32
MAGIC = b"GGUF"
# version 1 counted in 32 bits
VERSIONS = (2, 3)
UINT32, STRING, ARRAY, F32 = 4, 8, 9, 0
# bytes of GGUF's scalar types, by their numbers
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: as GGUF names it.
        sizes: innermost first.
        kind: GGML's number of its type.
        offset: bytes from the start of the file.
        length: bytes, padding included.
    """

    name: str
    sizes: tuple[int, ...]
    kind: int
    offset: int
    length: int


@dataclass(frozen=True)
class Gguf:
    """What the head of a GGUF file says.

    Attributes:
        metadata: type and value of each entry, as they are stored; the tokenizer's are left out.
        tensors: in the file's order.
    """

    metadata: Mapping[str, bytes]
    tensors: tuple[Tensor, ...]

    @classmethod
    def read(cls, path: Path) -> "Gguf":
        """Read a file's head; raises BadBundle when it is not that of a GGUF file."""
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return cls._parse(Reader(data), len(data))
        except (ValueError, KeyError, IndexError, struct.error) as error:
            raise BadBundle(f"{path}: is no GGUF file that this program reads ({error})") from None

    @classmethod
    def _parse(cls, reader: "Reader", end: int) -> "Gguf":
        if reader.data[:4] != MAGIC or reader.number("<4xI") not in VERSIONS:
            raise ValueError("its first bytes are others")
        count, entries = reader.number("<Q"), reader.number("<Q")
        metadata = {}
        for _ in range(entries):
            key, start = reader.text(), reader.place
            reader.skip_value(reader.number("<I"))
            if not key.startswith("tokenizer."):
                metadata[key] = reader.data[start : reader.place]
        if "general.alignment" in metadata:
            raise ValueError("its alignment is not the usual one")
        described = []
        for _ in range(count):
            name = reader.text()
            sizes = tuple(reader.number("<Q") for _ in range(reader.number("<I")))
            described.append((name, sizes, reader.number("<I"), reader.number("<Q")))
        base = aligned(reader.place)
        # a tensor ends where the next one begins, whatever its type: so no table of block sizes is needed
        starts = sorted(offset for *_, offset in described)
        if not starts or starts[-1] > end - base:
            raise ValueError("it ends before its tensors")
        ends = dict(zip(starts, [*starts[1:], end - base], strict=True))
        return cls(
            metadata,
            tuple(
                Tensor(name, sizes, kind, base + offset, ends[offset] - offset)
                for name, sizes, kind, offset in described
            ),
        )

    def tensor(self, name: str) -> Tensor:
        """One by its name; raises StopIteration where there is none."""
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def typical_layer(self) -> list[Tensor]:
        """The tensors of the first layer whose types are the most frequent ones: some quantisations mix them."""
        layers: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            block, _, rest = tensor.name.partition(".")[2].partition(".")
            if tensor.name.startswith("blk.") and rest:
                layers.setdefault(block, []).append(tensor)
        kinds = {block: tuple(tensor.kind for tensor in tensors) for block, tensors in layers.items()}
        ((common, _),) = Counter(kinds.values()).most_common(1)
        return next(tensors for block, tensors in layers.items() if kinds[block] == common)


class Reader:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap):
        self.data, self.place = data, 0

    def number(self, layout: str) -> int:
        (value,) = struct.unpack_from(layout, self.data, self.place)
        self.place += struct.calcsize(layout)
        return int(value)

    def text(self) -> str:
        length = self.number("<Q")
        self.place += length
        return self.data[self.place - length : self.place].decode()

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            length = self.number("<Q")
            self.place += length
        elif kind == ARRAY:
            element, count = self.number("<I"), self.number("<Q")
            if element != STRING:
                self.place += SCALARS[element] * count
                return
            for _ in range(count):
                self.skip_value(element)
        else:
            self.place += SCALARS[kind]


@contextmanager
def layer_file(path: Path) -> Iterator[Path]:
    """A model of one layer of a GGUF file and `ROWS` tokens, in memory, gone at the end or with the process.

    Raises:
        BadBundle: the file is no GGUF file, or has no layers.
        OSError: the system has no files in memory, or no room for this one.
    """
    head = Gguf.read(path)
    try:
        layer = head.typical_layer()
        norm = head.tensor("output_norm.weight")
    except (StopIteration, ValueError):
        raise BadBundle(f"{path}: has no layers") from None
    with model_of(path, head, layer, norm) as file:
        yield file


@contextmanager
def first_layer_file(path: Path) -> Iterator[Path]:
    """The same of the first layer, whose output is normalised as the second takes it; errors as `layer_file`."""
    head = Gguf.read(path)
    layer = [tensor for tensor in head.tensors if tensor.name.startswith("blk.0.")]
    try:
        norm = head.tensor("blk.1.attn_norm.weight")
    except StopIteration:
        raise BadBundle(f"{path}: has no second layer") from None
    with model_of(path, head, layer, norm) as file:
        yield file


@contextmanager
def model_of(path: Path, head: Gguf, layer: list[Tensor], norm: Tensor) -> Iterator[Path]:
    """A file in memory with one layer, what normalises its output, and an embedding matrix of zeros."""
    named = (replace(tensor, name=f"blk.0.{tensor.name.split('.', 2)[2]}") for tensor in layer)
    parts = [*named, replace(norm, name="output_norm.weight")]
    # zeros; without an output matrix, libllama takes this one in its place
    (width,) = norm.sizes
    embedding = Tensor("token_embd.weight", (width, ROWS), F32, 0, width * ROWS * 4)
    descriptor = os.memfd_create("layer")
    try:
        os.write(descriptor, write_head(head.metadata, [*parts, embedding]))
        with path.open("rb") as source:
            for tensor in parts:
                copy(source.fileno(), descriptor, tensor)
        # behind the end that was written, a file in memory reads as zeros, so the matrix need not be written
        os.truncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR) + embedding.length)
        # libllama opens paths only; this one leads to the file in memory
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def write_head(metadata: Mapping[str, bytes], tensors: list[Tensor]) -> bytes:
    """The head of a file in which the tensors follow one another."""
    # with another number of blocks, libllama would miss their tensors
    entries = {
        key: struct.pack("<II", UINT32, 1) if key.endswith(".block_count") else value for key, value in metadata.items()
    }
    head = MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(entries))
    head += b"".join(stored(key) + value for key, value in entries.items())
    offset = 0
    for tensor in tensors:
        head += stored(tensor.name) + struct.pack(f"<I{len(tensor.sizes)}Q", len(tensor.sizes), *tensor.sizes)
        head += struct.pack("<IQ", tensor.kind, offset)
        offset += aligned(tensor.length)
    return head.ljust(aligned(len(head)), b"\0")


def copy(source: int, target: int, tensor: Tensor) -> None:
    """Append a tensor's bytes, padding included."""
    done = 0
    while done < tensor.length:
        # the kernel sends 2 GB a call at most
        sent = os.sendfile(target, source, tensor.offset + done, tensor.length - done)
        if not sent:
            raise OSError(f"{tensor.name} ends early")
        done += sent
    os.lseek(target, aligned(os.lseek(target, 0, os.SEEK_CUR)), os.SEEK_SET)


def stored(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT
