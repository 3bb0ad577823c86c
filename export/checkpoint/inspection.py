"""What a checkpoint holds, for a person and as JSON."""

from collections import Counter
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint
from .geometry import take_inventory

__all__ = ["inspect_checkpoint", "render"]


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


def render(report: dict[str, Any]) -> str:
    """The report as text: a table of parts, the sizes, and what is wrong."""
    lines = [f"{'part':<9}{'tensors':>8}{'parameters':>15}{'MB':>10}  types"]
    for part, row in report["parts"].items():
        types = ", ".join(row["types"]) or "-"
        lines.append(f"{part:<9}{row['tensors']:>8}{row['parameters']:>15,}{row['bytes'] / 1e6:>10.1f}  {types}")
    lines.append("")
    for part, sizes in report["geometry"].items():
        stated = ", ".join(
            f"{name} {list(value) if isinstance(value, tuple) else value}" for name, value in sizes.items()
        )
        lines.append(f"{part}: {stated}")
    lines.append("")
    for problem in ("missing", "unknown", "misfits"):
        lines.append(f"{problem}: {len(report[problem]) or 'none'}")
        lines += [f"  {name}" for name in report[problem]]
    return "\n".join(lines)
