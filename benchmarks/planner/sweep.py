"""Latency and memory against frames, voxels, context and questions, one at a time."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...runtime.bundle.files import atomic_path
from ...runtime.bundle.manifest import Bundle
from ...runtime.console import Progress
from ...runtime.errors import BadInput, require_at_least
from .asking import Asked, ask
from .growth import Growth, draw, fit

__all__ = ["AXES", "SCHEMA", "exponents", "parse_axis", "plot", "sweep"]

SCHEMA = 1
# what is varied, with the values that it is given by default
AXES = {
    "frames": (2, 4, 8, 16, 32),
    "voxels": (3_000, 6_000, 12_000, 24_000, 48_000),
    "context": (1, 128, 512, 1_024, 2_048),
    "questions": (1, 2, 4, 8),
}
LEAST_MS = 1.0


def parse_axis(text: str) -> tuple[str, tuple[int, ...]]:
    """An axis with its values, `frames=2,4,8`, or with those that it has by default; raises BadInput for another."""
    name, _, given = text.partition("=")
    if name not in AXES:
        raise BadInput(f"--vary {text}: expected one of {', '.join(AXES)}, such as frames=2,4,8")
    try:
        values = tuple(sorted({int(value) for value in given.split(",")})) if given else AXES[name]
    except ValueError:
        raise BadInput(f"--vary {text}: expected whole numbers after =, such as {name}=2,4,8") from None
    require_at_least({f"--vary {name}": (values[0], 1)})
    if len(values) < 2:
        raise BadInput(f"--vary {text}: a growth needs two values or more")
    return name, values


def sweep(
    bundle: Path, base: Asked, axes: Mapping[str, Sequence[int]], out: Path, repeat: int, progress: Progress
) -> list[dict[str, Any]]:
    """Ask each question so many times, and write a line for each stage of each; all that is written stays.

    Args:
        bundle: an exported bundle.
        base: the question that differs in one thing at a time.
        axes: values by what is varied.
        out: JSON lines, a new file.
        repeat: of which the fastest counts.
        progress: where to report.

    Raises:
        BadInput: the file exists, or a number is out of range.
        StllmError: a question fails.
    """
    require_at_least({"--repeat": (repeat, 1), "--new-tokens": (base.new_tokens, 2)})
    Bundle(bundle).llm(base.quant)
    if out.exists():
        raise BadInput(f"--out {out}: exists; name another file, or remove it")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, out.open("x", encoding="utf-8") as file:
        for axis, values in axes.items():
            for value in values:
                asked = Asked(**{**asdict(base), axis: value})
                with progress.stage(f"{axis} {value}"):
                    found = measured(bundle, Path(folder), asked, axis, value, repeat)
                rows += found
                file.writelines(json.dumps(row) + "\n" for row in found)
                file.flush()
    return rows


def measured(bundle: Path, folder: Path, asked: Asked, axis: str, value: int, repeat: int) -> list[dict[str, Any]]:
    """A row a stage: the fastest time and the largest memory of all runs."""
    room = folder / f"{asked.voxels}-{asked.frames}"
    runs = [ask(bundle, room, asked) for _ in range(repeat)]
    return [
        {
            "schema": SCHEMA,
            "axis": axis,
            "value": value,
            "stage": stage,
            "ms": min(run.milliseconds[stage] for run in runs),
            "samples_ms": [run.milliseconds[stage] for run in runs],
            "peak_mb": max(run.peak_mb.get(stage, 0.0) for run in runs),
            **asdict(asked),
            "positions": runs[0].positions,
            "tokens": runs[0].tokens,
        }
        for stage in runs[0].milliseconds
    ]


def series(rows: Sequence[Mapping[str, Any]], axis: str, quantity: str) -> tuple[list[float], dict[str, list[float]]]:
    """X of an axis, and y of each stage that takes a millisecond or more at the most; context in positions."""
    of_axis = [row for row in rows if row["axis"] == axis]
    stages = dict.fromkeys(row["stage"] for row in of_axis)
    x = list(dict.fromkeys(row["positions"] if axis == "context" else row["value"] for row in of_axis))
    y = {stage: [float(row[quantity]) for row in of_axis if row["stage"] == stage] for stage in stages}
    return x, {stage: values for stage, values in y.items() if max(values) >= LEAST_MS and min(values) > 0}


def exponents(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Growth]]]:
    """Fitted growths by axis, quantity and stage."""
    axes = dict.fromkeys(row["axis"] for row in rows)
    return {axis: {quantity: fitted(*series(rows, axis, quantity)) for quantity in ("ms", "peak_mb")} for axis in axes}


def fitted(x: Sequence[float], lines: Mapping[str, Sequence[float]]) -> dict[str, Growth]:
    return {stage: fit(x, y) for stage, y in lines.items()}


def plot(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Write an SVG: milliseconds against each axis."""
    axes = dict.fromkeys(row["axis"] for row in rows)
    names = {axis: f"{'positions of the prompt' if axis == 'context' else axis}; ms a stage" for axis in axes}
    with atomic_path(path) as temporary:
        temporary.write_text(draw({names[axis]: series(rows, axis, "ms") for axis in axes}, title), encoding="utf-8")
