"""What a checkpoint holds."""

from collections import Counter
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint
from .geometry import take_inventory

__all__ = ["inspect_checkpoint"]


def inspect_checkpoint(path: Path, base: Path | None = None, point_encoder: Path | None = None) -> dict[str, Any]:
    """Parts with their tensors, parameters, bytes and types; what is unused, missing, unknown or misshapen.

    Raises:
        BadInput: the checkpoint cannot be read.
    """
    checkpoint = Checkpoint(path, base, point_encoder)
    inventory = take_inventory(checkpoint)
    parts = {**inventory.used, "unused": inventory.unused}
    return {
        "checkpoint": str(path),
        "files": [str(file) for file in checkpoint.files],
        "geometry": inventory.geometry.to_json(),
        "parts": {part: summarise(checkpoint, names) for part, names in parts.items()},
        "unused": inventory.unused,
        "missing": inventory.missing,
        "unknown": inventory.unknown,
        "misfits": inventory.misfits,
    }


def summarise(checkpoint: Checkpoint, names: list[str]) -> dict[str, Any]:
    parameters = stored_bytes = 0
    types: Counter[str] = Counter()
    for name in names:
        size = 1
        for length in checkpoint.shape(name):
            size *= length
        parameters += size
        stored_bytes += size * checkpoint.dtype(name).itemsize
        types[str(checkpoint.dtype(name)).removeprefix("torch.")] += size
    return {"tensors": len(names), "parameters": parameters, "bytes": stored_bytes, "types": dict(types)}
