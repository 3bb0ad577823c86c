"""Where marks of a picture stand: shares of its width in percent, so that it fits a phone and a desk as it is.

Heights are in pixels and text never scales. Curves are drawn in a box of 1000 by their height, which is stretched.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from ..latency.rows import Row
from .compare import Comparison
from .phase import Change
from .runs import FIRST_TOKEN, TOKEN, TOTAL, Part, Run
from .table import duration, short_duration, size

__all__ = [
    "Bar", "Curve", "Forest", "Plot", "Strip", "Strips", "Tick", "Waterfall", "forest", "memory_of_stages", "plot",
    "stacks", "strips", "waterfall",
]  # fmt: skip

KINDS = {
    "start": ("process", "imports", "load"),
    "inputs": ("scene", "video", "resize"),
    "geometry": ("voxels", "maps", "rays"),
    "encoders": ("vision", "points", "aligner"),
    "prefill": ("prompt", "prefill"),
    "decode": ("decode", "sampling", "detokenise"),
}
STRIP_HEIGHT = 22
PLOT_HEIGHT = 150
MOST_POINTS = 240
# a dot further from its median stands at the edge
MOST_REACH = 4.0
UNITS = {
    "celsius": (1.0, "°C"),
    "hertz": (1e-6, "MHz"),
    "watt": (1.0, "W"),
    "byte": (1e-9, "GB"),
    "second": (1e3, "ms"),
}


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, percent; its text; which part of the text stands there."""

    at: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Bar:
    """A stage or a run on a line of its own.

    Attributes:
        name: at the left above it.
        label: at the right above it.
        pieces: (kind, start, length, title), percent.
    """

    name: str
    label: str
    pieces: tuple[tuple[str, float, float, str], ...]


@dataclass(frozen=True)
class Waterfall:
    """The stages of a question, one after the other.

    Attributes:
        title: the phase.
        note: which question it is.
        bars: in the order of time.
        first: where the first token comes.
    """

    title: str
    note: str
    bars: tuple[Bar, ...]
    first: Tick | None


@dataclass(frozen=True)
class Strip:
    """Measurements of a stage: dots, and the middle half of them as a box (start, length), percent."""

    name: str
    kind: str
    label: str
    dots: str
    box: tuple[float, float]


@dataclass(frozen=True)
class Strips:
    """Measurements of all stages of a phase, each as a multiple of its own median."""

    title: str
    rows: tuple[Strip, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Curve:
    """A sensor over time: its name, what it ends at, and a path in 1000 x height."""

    name: str
    label: str
    path: str


@dataclass(frozen=True)
class Plot:
    """Curves that share axes; ticks of `y` are percent from the top."""

    title: str
    curves: tuple[Curve, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    height: int = PLOT_HEIGHT


@dataclass(frozen=True)
class Forest:
    """Ratios with their intervals on one axis.

    Attributes:
        rows: (name, label, verdict, start, length, value), percent.
        band: the margin (start, length).
        one: where nothing changes.
        ticks: of the axis.
    """

    rows: tuple[tuple[str, str, str, float, float, float], ...]
    band: tuple[float, float]
    one: float
    ticks: tuple[Tick, ...]


def kind_of(stage: str) -> str:
    """The group of stages that a colour stands for."""
    return next((kind for kind, starts in KINDS.items() if stage.startswith(starts)), "other")


def spent(part: Part, sample: str) -> dict[str, float]:
    """Median seconds of each stage of a question, in the order of the rows; sums and the first token are left out."""
    asked = [answer for answer in part.answers if answer.sample == sample]
    found = {stage: [one.seconds[stage] for one in asked if stage in one.seconds] for stage in part.stages}
    return {
        stage: float(np.median(all_of))
        for stage, all_of in found.items()
        if stage not in (TOTAL, FIRST_TOKEN) and all_of
    }


def usual_question(part: Part) -> str:
    """The question whose median total is in the middle."""
    totals: dict[str, list[float]] = {}
    for answer in part.answers:
        totals.setdefault(answer.sample, []).append(answer.seconds[TOTAL])
    ordered = sorted(totals, key=lambda sample: float(np.median(totals[sample])))
    return ordered[(len(ordered) - 1) // 2]


def waterfall(part: Part) -> Waterfall:
    """The stages of the question whose total is in the middle, medians of its repetitions."""
    sample = usual_question(part)
    stages = {stage: max(seconds, 0.0) for stage, seconds in spent(part, sample).items()}
    whole = sum(stages.values()) or 1.0
    bars, at = [], 0.0
    for stage, seconds in stages.items():
        piece = (kind_of(stage), 100 * at / whole, 100 * seconds / whole, stage)
        bars.append(Bar(said(stage), f"{duration(seconds)} · {share(seconds / whole)}", (piece,)))
        at += seconds
    firsts = [
        answer.seconds[FIRST_TOKEN]
        for answer in part.answers
        if answer.sample == sample and FIRST_TOKEN in answer.seconds
    ]
    first = None
    if firsts:
        place = min(100.0, 100 * float(np.median(firsts)) / whole)
        first = Tick(place, f"first token {duration(float(np.median(firsts)))}", "end" if place > 50 else "start")
    return Waterfall(part.phase, f"question {sample}, {duration(whole)}", tuple(bars), first)


def share(part: float) -> str:
    return f"{part:.1%}" if part >= 0.001 else "< 0.1%"


def strips(part: Part, most: int) -> Strips:
    """Measurements of each stage of a part beside that stage's median, at most so many dots a stage."""
    known = {stage: [value for value in part.seconds(stage) if value > 0] for stage in [*part.stages, TOKEN]}
    shares = {stage: np.array(values) / np.median(values) for stage, values in known.items() if values}
    # the axis is logarithmic, so that half and twice are as far from the median
    reach = min(max(1.25, *(max(values.max(), 1 / values.min()) for values in shares.values())), MOST_REACH)

    def place(share: float) -> float:
        return min(max(50 + 50 * log10(share) / log10(reach), 0.0), 100.0)

    ticks = [Tick(0, f"÷ {reach:.3g}", "start"), Tick(50, "median"), Tick(100, f"× {reach:.3g}", "end")]
    rows = tuple(strip(stage, known[stage], values, place, most) for stage, values in shares.items())
    return Strips(part.phase, rows, tuple(ticks))


def strip(
    stage: str, seconds: Sequence[float], shares: np.ndarray, place: Callable[[float], float], most: int
) -> Strip:
    shown = shares[:: ceil(len(shares) / most)].tolist()
    # heights that look random and are the same each time
    heights = (3 + (STRIP_HEIGHT - 6) * ((number * 0.618) % 1) for number in range(len(shown)))
    dots = "".join(f"M{10 * place(value):.0f} {height:.0f}h0" for value, height in zip(shown, heights, strict=True))
    quarter, three = (float(value) for value in np.quantile(shares, [0.25, 0.75]))
    label = f"{duration(float(np.median(seconds)))} ({duration(min(seconds))} to {duration(max(seconds))})"
    start = place(quarter)
    return Strip(
        said(stage), kind_of("decode" if stage == TOKEN else stage), label, dots, (start, place(three) - start)
    )


def said(stage: str) -> str:
    """A stage as people call it."""
    return "between tokens" if stage == TOKEN else stage.replace("_", " ")


def memory_of_stages(part: Part) -> tuple[Bar, ...]:
    """The most that each stage held, by kind of memory."""
    held: dict[str, list[int]] = {}
    for answer in part.answers:
        for stage, kinds in answer.memory.items():
            if stage not in (TOTAL, FIRST_TOKEN) and any(kinds):
                before = held.setdefault(stage, [0] * len(kinds))
                held[stage] = [max(most, kind or 0) for most, kind in zip(before, kinds, strict=True)]
    largest = max(map(sum, held.values()), default=1)
    names = ("anonymous", "file", "gpu")
    return tuple(
        Bar(said(stage), size(sum(kinds)), pieces_of(dict(zip(names, kinds, strict=True)), largest, size))
        for stage, kinds in held.items()
    )


def pieces_of(
    parts: dict[str, float] | dict[str, int], whole: float, said: Callable[[float], str]
) -> tuple[tuple[str, float, float, str], ...]:
    """Parts of a bar, one after the other."""
    pieces, at = [], 0.0
    for kind, value in parts.items():
        if value > 0:
            pieces.append((kind, 100 * at / whole, 100 * value / whole, f"{kind}: {said(value)}"))
        at += value
    return tuple(pieces)


def stacks(runs: Sequence[Run], phase: str) -> tuple[Bar, ...]:
    """A bar a run: what its question in the middle takes in each group of stages; all on one scale."""
    shown = [(run, part) for run in runs if (part := run.part(phase))]
    sums: list[dict[str, float]] = []
    for _, part in shown:
        groups = dict.fromkeys([*KINDS, "other"], 0.0)
        for stage, seconds in spent(part, usual_question(part)).items():
            groups[kind_of(stage)] += max(seconds, 0.0)
        sums.append(groups)
    names = [f"{run.name}, {run.about['quant']}" for run, _ in shown]
    longest = max((sum(groups.values()) for groups in sums), default=0.0) or 1.0
    return tuple(
        Bar(
            run.source if names.count(name) > 1 else name,
            duration(sum(groups.values())),
            pieces_of(groups, longest, duration),
        )
        for (run, _), name, groups in zip(shown, names, sums, strict=True)
    )


def plot(sensors: Iterable[Row], unit: str) -> Plot | None:
    """All sensors of a unit over time, or None where nothing was read."""
    scale, name = UNITS[unit]
    series: dict[str, list[tuple[float, float | None]]] = {}
    for row in sensors:
        if row["unit"] == unit:
            value = None if row["value"] is None else row["value"] * scale
            series.setdefault(row["sensor"], []).append((row["seconds"], value))
    series = {sensor: points for sensor, points in series.items() if any(value is not None for _, value in points)}
    known = [value for points in series.values() for _, value in points if value is not None]
    if not known:
        return None
    end = max(seconds for points in series.values() for seconds, _ in points) or 1.0
    step = nice((max(known) - (0 if unit != "celsius" else min(known))) / 3 or max(known) or 1.0)
    low = 0.0 if unit != "celsius" else step * floor(min(known) / step)
    high = max(step * ceil(max(known) / step), low + step)
    levels = [low + step * count for count in range(1, round((high - low) / step) + 1)]
    return Plot(
        name,
        tuple(
            Curve(sensor, ending(points, name), path(thinned(points), end, low, high))
            for sensor, points in series.items()
        ),
        tuple(
            Tick(at, short_duration(end * at / 100), where)
            for at, where in ((0, "start"), (50, "middle"), (100, "end"))
        ),
        tuple(Tick(100 * (high - level) / (high - low), f"{level:,.4g} {name}") for level in levels),
    )


def nice(step: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def ending(points: Sequence[tuple[float, float | None]], unit: str) -> str:
    """The range of a sensor, and whether it vanished."""
    known = [value for _, value in points if value is not None]
    gone = ", vanished" if points[-1][1] is None else ""
    low, high = (f"{value:,.4g}" for value in (min(known), max(known)))
    return f"{low} {unit}{gone}" if low == high else f"{low} to {high} {unit}{gone}"


def thinned(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """So few points that a curve keeps its look: the least and the largest of each stretch, and gaps."""
    if len(points) <= MOST_POINTS:
        return list(points)
    kept = []
    for stretch in np.array_split(np.arange(len(points)), MOST_POINTS // 2):
        known = [place for place in stretch.tolist() if points[place][1] is not None]
        ends = (
            {min(known, key=lambda p: points[p][1] or 0), max(known, key=lambda p: points[p][1] or 0)}
            if known
            else set()
        )
        kept += [points[place] for place in sorted(ends)] or [points[int(stretch[0])]]
    return kept


def path(points: Sequence[tuple[float, float | None]], end: float, low: float, high: float) -> str:
    """A line through points, broken where a sensor was not there."""
    steps, down = [], False
    for seconds, value in points:
        if value is not None:
            at, height = 1000 * seconds / end, 2 + (PLOT_HEIGHT - 4) * (high - value) / (high - low)
            steps.append(f"{'L' if down else 'M'}{at:.0f} {height:.1f}")
        down = value is not None
    return "".join(steps)


def forest(comparison: Comparison) -> Forest | None:
    """Ratios of the headline of each phase, and of every stage that changed; None where none has an interval."""
    shown = [change for change in comparison.changes if change.low is not None and worth_showing(change)]
    if not shown:
        return None
    margin = comparison.margin
    furthest = max(max(change.high or 1, 1 / (change.low or 1)) for change in shown)
    # the axis is logarithmic, so that half and twice are as far from one
    reach = log10(min(max(furthest, 1 + 2 * margin) * 1.02, 32))

    def place(ratio: float) -> float:
        return min(max(50 + 50 * log10(ratio) / reach, 0.0), 100.0)

    rows = []
    for change in shown:
        low, high = place(change.low or 1), place(change.high or 1)
        name = f"{change.phase} {said(change.stage)}"
        rows.append(
            (name, f"{change.ratio - 1:+.1%}, {change.verdict}", change.verdict, low, high - low, place(change.ratio))
        )
    low, high = place(1 / (1 + margin)), place(1 + margin)
    ends = (Tick(0, f"{10**-reach:.2f} ×", "start"), Tick(100, f"{10**reach:.2f} ×", "end"))
    return Forest(tuple(rows), (low, high - low), place(1.0), (ends[0], Tick(50, "same"), ends[1]))


def worth_showing(change: Change) -> bool:
    return change.stage in (TOTAL, FIRST_TOKEN, TOKEN) or change.verdict in ("slower", "faster")
