"""What was measured as JSON rows, as a table, as a plot, and in words."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from html import escape
from itertools import combinations
from pathlib import Path
from secrets import token_hex
from typing import Any

from ...runtime.bundle.files import atomic_path
from ...runtime.errors import BadInput
from .evaluation import CLASSES, Measured

__all__ = ["SCHEMA", "plot", "rows", "table", "words", "write"]

SCHEMA = "stllm-edge.quality/1"
SHOWN = ("video", "after", "answer", "all")
COLUMNS = ("kl_mean", "kl_median", "kl_p90", "kl_p99", "kl_max", "top1", "rms_dp", "perplexity", "rel_rms")


def rows(measured: Sequence[Measured], about: dict[str, Any]) -> list[dict[str, Any]]:
    """Flat rows: one `run`, and of each model a `quality` row a class of positions and one of `answers`."""
    run = token_hex(8)
    common = {"schema": SCHEMA, "run": run, "bundle": about["bundle"]}
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    found: list[dict[str, Any]] = [{**common, "kind": "run", "finished": started, "null_control": 0.0, **about}]
    for entry in measured:
        model = {"quant": entry.name, "type": entry.type, "bytes": entry.size, "reference": about["reference"]}
        for kind in (*CLASSES, "all"):
            if (summary := entry.summary(kind)) is None:
                continue
            errors = {f"{name}_se": value for name, value in summary.errors.items() if name != "kl_max"}
            counts = {"positions": kind, "count": summary.positions, "questions": summary.questions}
            found.append({**common, "kind": "quality", **model, **counts, **summary.values, **errors})
        answers = entry.answers()
        exact = {"exact": answers.value, "exact_low": answers.low, "exact_high": answers.high}
        found.append({**common, "kind": "answers", **model, "questions": len(entry.questions), **exact})
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """Rows as one Markdown table, a line a model and class."""
    figures = ("KL mean", "median", "90 %", "99 %", "max", "top-1", "RMS Δp", "perplexity", "rel-rms")
    heads = ["model", "MB", "positions", *figures, "exact answers"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    answers = {row["quant"]: row for row in found if row["kind"] == "answers"}
    for row in found:
        if row["kind"] != "quality" or row["positions"] not in SHOWN:
            continue
        cells = [row["quant"], f"{row['bytes'] / 1e6:.2f}", f"{row['positions']} ({row['count']:,})"]
        cells += [shown(row, name) for name in COLUMNS]
        exact = answers[row["quant"]]
        percent = (
            f"{exact['exact']:.1%} [{exact['exact_low']:.1%}, {exact['exact_high']:.1%}] of {exact['questions']:,}"
        )
        lines.append(f"| {' | '.join([*cells, percent if row['positions'] == 'answer' else ''])} |")
    return "\n".join(lines)


def shown(row: dict[str, Any], name: str) -> str:
    """A figure with its standard error."""
    value, error = row[name], row.get(f"{name}_se")
    if value is None:
        return "too few" if name.startswith("kl") else ""
    form = ".2%" if name == "top1" else ".4f" if name == "perplexity" else ".2e"
    return f"{value:{form}}" + ("" if error is None else f" ± {error:{'.2%' if name == 'top1' else '.1e'}}")


def words(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Where the divergence of answers and the answers themselves prefer different models."""
    kl = {row["quant"]: row for row in found if row["kind"] == "quality" and row["positions"] == "answer"}
    exact = {row["quant"]: row for row in found if row["kind"] == "answers"}
    slight = []
    for closer, other in ordered(kl):
        if exact[closer]["exact"] >= exact[other]["exact"]:
            continue
        shares = f"{exact[other]['exact']:.1%} against {exact[closer]['exact']:.1%}"
        if exact[closer]["exact_high"] >= exact[other]["exact_low"]:
            slight.append(f"{closer} and {other} ({shares})")
            continue
        losses = f"{kl[closer]['kl_mean']:.2e} against {kl[other]['kl_mean']:.2e}"
        yield f"KL and answers disagree: KL prefers {closer} ({losses}), answers prefer {other} ({shares})"
    if slight:
        yield f"KL prefers the first, answers the second, but within their intervals: {', '.join(slight)}"
    if len(kl) > 1 and all(exact[closer]["exact"] >= exact[other]["exact"] for closer, other in ordered(kl)):
        yield "KL and answers order the models alike"


def ordered(kl: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Pairs of which the first has the smaller divergence."""
    return combinations(sorted(kl, key=lambda name: float(kl[name]["kl_mean"])), 2)


def write(found: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write results.jsonl and loss.svg; raises BadInput where that is not possible."""
    try:
        for name, text in (
            ("results.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in found)),
            ("loss.svg", plot(found)),
        ):
            with atomic_path(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--out {folder}: cannot be written ({error.strerror})") from None


WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 560, 90, 30, 60


def plot(found: Sequence[dict[str, Any]]) -> str:
    """Mean KL divergence of answers against size, on a logarithmic axis, and below it exact answers against size."""
    import math

    kl = {row["quant"]: row for row in found if row["kind"] == "quality" and row["positions"] == "answer"}
    exact = {row["quant"]: row for row in found if row["kind"] == "answers"}
    sizes = {name: row["bytes"] / 1e6 for name, row in exact.items()}
    low, high = min(sizes.values()), max(sizes.values())
    room, half = WIDTH - LEFT - 90, (HEIGHT - 2 * TOP - GAP) / 2
    across = {name: LEFT + 20 + (size - low) / max(high - low, 1e-9) * (room - 40) for name, size in sizes.items()}
    logs = {name: math.log10(row["kl_mean"]) for name, row in kl.items() if row["kl_mean"] > 0}
    bottom, top = math.floor(min(logs.values(), default=-6)), math.ceil(max(logs.values(), default=0))
    worst = min(row["exact_low"] for row in exact.values())
    best = max(row["exact_high"] for row in exact.values())

    def loss(value: float) -> float:
        return TOP + (top - value) / max(top - bottom, 1) * half

    def share(value: float) -> float:
        return TOP + half + GAP + (best - value) / max(best - worst, 1e-9) * half

    shapes = [label(LEFT, TOP - 12, "mean KL divergence of answers, nats"), label(LEFT, TOP + half + GAP - 12, "exact")]
    for power in range(bottom, top + 1):
        shapes += [line(LEFT, loss(power), LEFT + room, loss(power)), label(8, loss(power) + 4, f"1e{power}")]
    for value in (worst, (worst + best) / 2, best):
        shapes += [line(LEFT, share(value), LEFT + room, share(value)), label(8, share(value) + 4, f"{value:.1%}")]
    for name, x in across.items():
        row = exact[name]
        shapes.append(line(x, share(row["exact_low"]), x, share(row["exact_high"]), "#333"))
        shapes.append(dot(x, share(row["exact"]), name))
        if name in logs:
            shapes.append(dot(x, loss(logs[name]), name))
    shapes.append(label(LEFT, HEIGHT - 4, f"size of the file, {low:.2f} to {high:.2f} MB"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(shapes)}</svg>\n'
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str = "#ddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def label(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def dot(x: float, y: float, name: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#2a6fb0"/>' + label(x + 6, y - 6, name)
