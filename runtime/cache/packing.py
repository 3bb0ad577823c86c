"""Stages' results as bytes and back: arrays, and the small records that hold them; nothing that could run."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from ..fit.colours import Agreement
from ..fit.fit import Finding, Verdict
from ..host.maps import KernelMaps, Slabs
from ..host.rays import Rays
from ..host.voxels import Voxels
from ..stages import EncodedRays

__all__ = ["arrays", "nbytes", "pack", "unpack"]

KINDS = (Agreement, EncodedRays, Finding, KernelMaps, Rays, Slabs, Verdict, Voxels)
RECORDS = {kind.__name__: kind for kind in KINDS}
DIGEST = hashlib.sha256().digest_size
ALIGNMENT = 64
# what a record of numbers and words takes in memory, about
WITHOUT_ARRAYS = 4096


def pack(value: Any) -> bytes:
    """A result as bytes: a digest of the rest, the length of the head, the head in JSON, and the arrays."""
    held: list[np.ndarray] = []
    head = json.dumps([describe(value, held), [[array.dtype.str, array.shape] for array in held]]).encode()
    parts = [len(head).to_bytes(8, "little"), head]
    for array in held:
        parts += [padding(sum(map(len, parts))), array.tobytes()]
    body = b"".join(parts)
    return hashlib.sha256(body).digest() + body


def unpack(data: bytes) -> Any:
    """The result again, its arrays read-only; raises ValueError where the bytes are not those that `pack` gave."""
    body = memoryview(data)[DIGEST:]
    if hashlib.sha256(body).digest() != data[:DIGEST]:
        raise ValueError("its digest differs")
    place = 8 + int.from_bytes(body[:8], "little")
    described, shapes = json.loads(bytes(body[8:place]))
    held = []
    for dtype, shape in shapes:
        place += len(padding(place))
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(body, np.dtype(dtype), count, place).reshape(shape)
        held.append(array)
        place += array.nbytes
    return build(described, held)


def describe(value: Any, held: list[np.ndarray]) -> Any:
    """A result as JSON takes it, with numbers for its arrays, which are appended to a list."""
    if isinstance(value, np.ndarray):
        held.append(np.ascontiguousarray(value))
        return {"array": len(held) - 1}
    if type(value).__name__ in RECORDS:
        return {"record": type(value).__name__, "of": [describe(part, held) for part in parts_of(value)]}
    if isinstance(value, tuple):
        return {"tuple": [describe(part, held) for part in value]}
    return {"value": value}


def build(described: Any, held: list[np.ndarray]) -> Any:
    """The contrary of `describe`."""
    if "array" in described:
        return held[described["array"]]
    if "record" in described:
        return RECORDS[described["record"]](*(build(part, held) for part in described["of"]))
    if "tuple" in described:
        return tuple(build(part, held) for part in described["tuple"])
    return described["value"]


def parts_of(value: Any) -> list[Any]:
    """The values inside a record."""
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    return list(value)


def arrays(value: Any) -> Iterator[np.ndarray]:
    """The arrays inside a result."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple) or type(value).__name__ in RECORDS:
        for part in parts_of(value):
            yield from arrays(part)


def nbytes(value: Any) -> int:
    """Bytes of a result's arrays; of one that stays on a GPU, those of its float32 numbers; of none, some."""
    if hasattr(value, "shape") and not isinstance(value, np.ndarray):
        return 4 * int(np.prod(value.shape))
    return sum(array.nbytes for array in arrays(value)) or WITHOUT_ARRAYS


def padding(place: int) -> bytes:
    return b"\0" * (-place % ALIGNMENT)
