"""Keys of features: a digest over all that they are made of, never over a name."""

import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..setup import Setup

__all__ = ["DECODERS", "REVISION", "Arrays", "digest", "encoder_digest"]

# of the stages on the host; another number makes all that is known unknown
REVISION = 1
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "tensorrt")
# of frames
DECODERS = ("pillow", "av")


def digest(*parts: Any) -> str:
    """SHA-256 over values that JSON knows, bytes and arrays, hexadecimal; of an array, type and shape count too."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype.str}{part.shape}".encode())
            sha.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        elif isinstance(part, bytes):
            sha.update(f"bytes {len(part)}".encode())
            sha.update(part)
        else:
            sha.update(json.dumps(part).encode())
        # what ends one part must not be able to begin the next
        sha.update(b"\0\xff")
    return sha.hexdigest()


class Arrays:
    """Digests of arrays that nobody changes meanwhile, each computed once; they are told apart by identity."""

    def __init__(self) -> None:
        # with the arrays, so that none is freed and its identity given to another
        self._known: dict[int, tuple[np.ndarray, str]] = {}

    def digest(self, array: np.ndarray) -> str:
        """Of one of them."""
        if id(array) not in self._known:
            self._known[id(array)] = array, digest(array)
        return self._known[id(array)][1]


def encoder_digest(setup: Setup, name: str) -> str:
    """What decides the bits that an encoder computes, beside its inputs: its files, and who runs them and how."""
    placement, engine = setup.placement, setup.placement.engines.get(name)
    if engine is not None:
        files = [str(engine.file.relative_to(setup.bundle.path))]
    else:
        files = [setup.graphs[name].file, setup.graphs[name].weights]
    held = sorted(setup.bundle.digests(files).values())
    how = [placement.name, list(placement.providers), setup.precision, setup.threads, setup.literal, setup.map_format]
    return digest(REVISION, name, held, how, [installed(package) for package in RUNTIMES])


@cache
def installed(package: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
