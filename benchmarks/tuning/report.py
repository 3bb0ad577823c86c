"""What a search found, as a table and as a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.files import atomic_path
from ...runtime.errors import BadInput
from ..scoring.metrics import Estimate, wilson
from .candidates import Candidate
from .front import Column, median_interval
from .search import Found

__all__ = ["Figures", "figures_of", "table", "to_json", "write_plot"]

TITLES = ("", "configuration", "questions", "first text, s", "answer, s", "memory, MB", "right, %", "agreement, %", "")
CHOSEN, ON_FRONT = "→", "•"


@dataclass(frozen=True)
class Figures:
    """Estimates of one configuration, with 95 % intervals.

    Attributes:
        questions: that it was asked.
        first: median seconds to the first text.
        answer: median seconds to the end of the answer.
        memory: bytes at the peak.
        exact: share of answers that are the truth.
        agreement: share of answers that are those of the most exact configuration.
    """

    questions: int
    first: Estimate
    answer: Estimate
    memory: int
    exact: Estimate
    agreement: Estimate


def figures_of(column: Column) -> Figures:
    """Estimates from measurements."""
    n = len(column)
    return Figures(
        questions=n,
        first=median_interval(column.first),
        answer=median_interval(column.whole),
        memory=column.memory,
        exact=wilson(int(column.right.sum()), n),
        agreement=wilson(int(column.same.sum()), n),
    )


def table(found: Found[Candidate], chosen: Candidate | None) -> str:
    """The front, the most exact first, and below it what is not on it and why."""
    rows: list[tuple[str, ...]] = [TITLES]
    for name in [*found.front, *found.drops]:
        mark = CHOSEN if name == chosen else ON_FRONT if name in found.front else ""
        rows.append((mark, str(name), *cells(found, name), reason(found, name)))
    widths = [max(len(row[place]) for row in rows) for place in range(len(TITLES))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def cells(found: Found[Candidate], name: Candidate) -> tuple[str, ...]:
    if name not in found.columns:
        known = found.memory.get(name)
        return ("0", "-", "-", "-" if known is None else f"{known / 1e6:.0f}", "-", "-")
    figures = figures_of(found.columns[name])
    times = (interval(estimate, 1, 3) for estimate in (figures.first, figures.answer))
    shares = (interval(estimate, 100, 1) for estimate in (figures.exact, figures.agreement))
    return (str(figures.questions), *times, f"{figures.memory / 1e6:.0f}", *shares)


def interval(estimate: Estimate, scale: float, decimals: int) -> str:
    value, low, high = (f"{scale * x:.{decimals}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def reason(found: Found[Candidate], name: Candidate) -> str:
    if name not in found.drops:
        return ""
    drop = found.drops[name]
    return drop.reason if drop.by is None else f"{drop.reason}: {drop.by}"


def to_json(found: Found[Candidate], chosen: Candidate | None, preset: Path | None) -> dict[str, Any]:
    """All figures, as JSON takes them."""

    def entry(name: Candidate) -> dict[str, Any]:
        options = name.options
        told: dict[str, Any] = {"bundle": name.bundle.name, "precision": options.precision, "quant": options.quant}
        told |= {"frames": options.frames, "kv": options.kv, "memory_bytes": found.memory.get(name)}
        if options.recompute is not None:
            told["approximate"] = {"recompute": options.recompute}
        if name in found.columns:
            figures = figures_of(found.columns[name])
            estimates = {key: getattr(figures, key) for key in ("first", "answer", "exact", "agreement")}
            told |= {"questions": figures.questions}
            told |= {key: [value.value, value.low, value.high] for key, value in estimates.items()}
        return told | {"front": name in found.front, "reason": reason(found, name)}

    return {
        "front": [str(name) for name in found.front],
        "chosen": None if chosen is None else str(chosen),
        "preset": None if preset is None else str(preset),
        "reference": str(found.reference),
        "asked": found.asked,
        "configurations": [entry(name) for name in [*found.front, *found.drops]],
        "skipped": found.skipped,
    }


# the plot

WIDTH, HEIGHT, LEFT, TOP, LINE = 720, 380, 60, 20, 20
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222 } .axis { stroke: #888 } .other { fill: #bbb }
.front { fill: #0b6; } .chosen { fill: #d30 } .bar { stroke: #0b6 } .number { fill: #fff; font-size: 11px }
@media (prefers-color-scheme: dark) { svg { background: #181818 } text { fill: #ddd } .other { fill: #555 } }
"""


def write_plot(path: Path, found: Found[Candidate], chosen: Candidate | None) -> None:
    """Draw time to the first text against right answers, with the front numbered; raises BadInput.

    Bars are 95 % intervals, areas of circles memory.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_text("\n".join(drawing(found, chosen)) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: the plot cannot be written ({error.strerror})") from None


def drawing(found: Found[Candidate], chosen: Candidate | None) -> Iterator[str]:
    figures = {name: figures_of(column) for name, column in found.columns.items()}
    across = Axis.over([one.first.value for one in figures.values()], LEFT, WIDTH - 30)
    shown = [bound for name in found.front for bound in (figures[name].exact.low, figures[name].exact.high)]
    up = Axis.over([one.exact.value for one in figures.values()] + shown, HEIGHT - 40, TOP)
    most = max(one.memory for one in figures.values())
    height = HEIGHT + LINE * (len(found.front) + 1)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    yield f"<title>Time to the first text against right answers</title><style>{STYLE}</style>"
    yield f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{HEIGHT - 40}H{WIDTH - 30}"/>'
    for value in across.ticks():
        yield f'<text x="{across.at(value):.1f}" y="{HEIGHT - 22}" text-anchor="middle">{value:.3g}</text>'
    for value in up.ticks():
        yield f'<text x="{LEFT - 6}" y="{up.at(value) + 4:.1f}" text-anchor="end">{100 * value:.1f}</text>'
    yield f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">seconds to the first text</text>'
    yield f'<text x="4" y="{TOP - 6}">right answers, %</text>'
    for name in sorted(figures, key=found.front.__contains__):
        one = figures[name]
        x, y, radius = across.at(one.first.value), up.at(one.exact.value), 4 + 8 * (one.memory / most) ** 0.5
        kind = "chosen" if name == chosen else "front" if name in found.front else "other"
        if name in found.front:
            low, high = up.at(one.exact.low), up.at(one.exact.high)
            yield f'<path class="bar" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'
        title = f"<title>{escape(str(name))}: {one.memory / 1e6:.0f} MB</title>"
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{title}</circle>'
        if name in found.front:
            number = found.front.index(name) + 1
            yield f'<text class="number" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{number}</text>'
    for number, name in enumerate(found.front, start=1):
        told = f"{number}  {name}, {figures[name].memory / 1e6:.0f} MB{', chosen' if name == chosen else ''}"
        yield f'<text x="{LEFT}" y="{HEIGHT + LINE * number}">{escape(told)}</text>'
    yield "</svg>"


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to pixels."""

    low: float
    high: float
    start: float
    stop: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, stop: float) -> "Axis":
        low, high = min(values), max(values)
        room = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
        return cls(low - room, high + room, start, stop)

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        return [float(value) for value in np.linspace(self.low, self.high, 6)[1:-1]]
