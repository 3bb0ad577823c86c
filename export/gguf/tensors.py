"""Every tensor of a GGUF file read back: digests and statistics for the manifest, and what differs from them later."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader

from ...runtime.bundle.values import typed
from ...runtime.console import Progress
from ...runtime.errors import BadBundle
from ..checkpoint.checkpoint import Checkpoint
from .types import dequantise_fast, tensor_bytes

__all__ = ["Damage", "Head", "Record", "Records", "damages", "read_back", "snr_by_class"]

# dequantised at once, by each of two threads
VALUES_AT_ONCE = 2**22
BLOCK = 2**22
# more than a tensor's signal-to-noise ratio differs by between machines
SNR_SLACK = 0.05
EXACT = 999.0


@dataclass(frozen=True)
class Record:
    """What a manifest says of a tensor.

    Attributes:
        type: GGML type.
        shape: rows and columns, or columns.
        offset: bytes from the start of the file.
        bytes: without padding.
        sha256: of its bytes.
        rms: root mean square of the values.
        peak: largest magnitude.
        snr: of the checkpoint's values to the difference from them, dB; `EXACT` where there is none.
    """

    type: str
    shape: tuple[int, ...]
    offset: int
    bytes: int
    sha256: str
    rms: float
    peak: float
    snr: float


@dataclass(frozen=True)
class Head:
    """Bytes before the first tensor, and their SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Records:
    """A file, tensor by tensor."""

    head: Head
    tensors: dict[str, Record]

    def to_json(self) -> dict[str, Any]:
        """As the manifest has it."""
        return asdict(self)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Records | None":
        """From a manifest's entry of a language model; None where it has none, as those of older versions.

        Raises:
            BadBundle: they are not what was written.
        """
        if "tensors" not in entry:
            return None
        try:
            found: Records = typed(cls, entry["tensors"], "tensors")
        except ValueError as error:
            raise BadBundle(f"manifest.json: {error}; export the language model again") from None
        return found


@dataclass(frozen=True)
class Damage:
    """A tensor, or another part of a file, and what is wrong with it."""

    name: str
    reason: str


def read_back(path: Path, checkpoint: Checkpoint, names: Mapping[str, str], progress: Progress) -> Records:
    """Read a file as it was written, dequantise it and compare it with the checkpoint.

    Args:
        path: GGUF file.
        checkpoint: what was written.
        names: the checkpoint's names by those in GGUF.
        progress: where to report.
    """
    reader = GGUFReader(path)
    tensors = {}
    with path.open("rb") as file, progress.bar(f"read {path.name} back", len(reader.tensors)) as advance:
        head = Head(int(reader.data_offset), digest(file, 0, int(reader.data_offset)))
        for tensor in reader.tensors:
            kind, shape = str(tensor.tensor_type.name), tuple(int(size) for size in tensor.shape[::-1])
            offset, size = int(tensor.data_offset), int(tensor.n_bytes)
            rms, peak, snr = statistics(file, Place(kind, shape, offset), checkpoint.tensor(names[tensor.name]))
            digested = digest(file, offset, size)
            tensors[tensor.name] = Record(kind, shape, offset, size, digested, rms, peak, snr)
            advance(1)
    return Records(head, tensors)


def damages(
    path: Path, records: Records, size: int, checkpoint: Checkpoint, names: Mapping[str, str]
) -> Iterator[Damage]:
    """What of a file is not as the manifest and the checkpoint have it.

    Nothing that the file says of itself is used, so a damaged head is found as everything else is.

    Args:
        path: GGUF file.
        records: what the manifest says of it.
        size: bytes that the manifest says.
        checkpoint: what was written.
        names: the checkpoint's names by those in GGUF.
    """
    found = path.stat().st_size
    if found > size:
        yield Damage(path.name, f"{found - size} bytes follow the last tensor")
    end = records.head.bytes
    with path.open("rb") as file:
        if digest(file, 0, end) != records.head.sha256:
            yield Damage("head", "sizes, constants or tokens differ: its SHA-256 is another")
        for name, record in sorted(records.tensors.items(), key=lambda item: item[1].offset):
            if padding(file, end, record.offset):
                yield Damage(name, "the bytes before it are not empty")
            end = record.offset + record.bytes
            if end > found:
                yield Damage(name, f"the file ends {end - found} bytes before its end")
                continue
            yield from differences(file, name, record, checkpoint.tensor(names[name]))
        if padding(file, end, min(size, found)):
            yield Damage(name, "the bytes behind it are not empty")


def differences(file: BinaryIO, name: str, record: Record, reference: torch.Tensor) -> Iterator[Damage]:
    """What of a tensor is not as its record and the checkpoint have it."""
    if digest(file, record.offset, record.bytes) != record.sha256:
        rms, _, snr = statistics(file, Place(record.type, record.shape, record.offset), reference)
        yield Damage(name, f"its SHA-256 differs; rms {rms:.3g} ({record.rms:.3g}), {snr:.1f} dB ({record.snr:.1f})")
        return
    _, _, snr = statistics(file, Place(record.type, record.shape, record.offset), reference)
    if not snr >= record.snr - SNR_SLACK:
        yield Damage(name, f"{snr:.1f} dB from the checkpoint, {record.snr:.1f} were recorded")


def padding(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether bytes between tensors hold something."""
    file.seek(start)
    return any(file.read(max(0, stop - start)))


def digest(file: BinaryIO, start: int, count: int) -> str:
    """SHA-256 of a part of a file."""
    sha = hashlib.sha256()
    file.seek(start)
    while count and (block := file.read(min(count, BLOCK))):
        sha.update(block)
        count -= len(block)
    return sha.hexdigest()


@dataclass(frozen=True)
class Place:
    """Type, shape and offset of a tensor in a file."""

    type: str
    shape: tuple[int, ...]
    offset: int

    def blocks(self) -> list[tuple[int, int]]:
        """First and last row of blocks of bounded size; a vector is one row."""
        rows, columns = (1, *self.shape)[-2:]
        step = max(1, VALUES_AT_ONCE // columns)
        return [(first, min(rows, first + step)) for first in range(0, rows, step)]


def statistics(file: BinaryIO, place: Place, reference: torch.Tensor) -> tuple[float, float, float]:
    """Root mean square, largest magnitude, and signal-to-noise ratio in dB of a tensor against the checkpoint's."""
    whole = reference.reshape(-1, place.shape[-1])
    row = tensor_bytes((place.shape[-1],), place.type)
    path = Path(file.name)

    def sums(block: tuple[int, int]) -> tuple[float, float, float, float]:
        first, stop = block
        stored = np.fromfile(path, np.uint8, (stop - first) * row, offset=place.offset + first * row)
        ours = dequantise_fast(stored.reshape(stop - first, row), GGMLQuantizationType[place.type])
        theirs = whole[first:stop].float().numpy()
        peak = float(max(ours.max(), -ours.min()))
        signal, power = square(theirs), square(ours)
        return power, peak, signal, square(np.subtract(ours, theirs, out=ours))

    with ThreadPoolExecutor(2) as pool:
        power, peaks, signal, noise = zip(*pool.map(sums, place.blocks()), strict=True)
    least = np.finfo(float).tiny
    snr = EXACT if not np.sum(noise) else 10 * np.log10(max(float(np.sum(signal)), least) / float(np.sum(noise)))
    # NaN is no JSON
    rms, peak = np.nan_to_num([np.sqrt(np.sum(power) / whole.numel()), max(peaks)])
    return float(rms), float(peak), float(np.nan_to_num(snr, neginf=-EXACT))


def square(values: np.ndarray) -> float:
    """Sum of squares, accurate enough for a ratio of 100 dB: rows in float32, their sum in float64."""
    return float(np.einsum("ij,ij->i", values, values).sum(dtype=np.float64))


def snr_by_class(records: Records) -> dict[str, float]:
    """Signal-to-noise ratio, dB, of each class of matrices: mean over its tensors; `EXACT` for those without loss."""
    classes: dict[str, list[float]] = {}
    for name, record in records.tensors.items():
        if len(record.shape) > 1:
            classes.setdefault(re.sub(r"^blk\.\d+\.|\.weight$", "", name), []).append(record.snr)
    return {kind: float(np.mean(values)) for kind, values in classes.items()}
