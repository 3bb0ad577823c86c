"""Tables in Markdown, in llama-bench's manner: of many runs, and of the stages of each; and the same as plain data."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ..latency.statistics import Interval, Summary
from .compare import Comparison
from .phase import Change
from .runs import FIRST_TOKEN, TOKEN, TOTAL, Part, Run

__all__ = [
    "clean",
    "comparison_table",
    "duration",
    "headline",
    "headline_table",
    "number",
    "show",
    "size",
    "stage_table",
]

DASH = "–"
LEFT = ("device", "power mode", "bundle", "quant", "encoders", "workload", "phase", "stage", "verdict", "")


def show(runs: Sequence[Run], *, stages: bool | None = None) -> str:
    """The table of all runs, then one of the stages of each.

    Args:
        runs: in the order of the lines.
        stages: whether those follow; None where there is a single run.
    """
    parts = [headline_table(runs), *notes(runs)]
    if len(runs) == 1 if stages is None else stages:
        parts += [stage_table(run, part) for run in runs for part in run.parts]
    return "\n\n".join(parts)


def headline_table(runs: Sequence[Run]) -> str:
    """A line a run, phase and length; nothing in it is an average over lengths."""
    lines = [headline_cells(run, part) for run in runs for part in run.parts]
    empty = [name for name in lines[0] if all(line[name] == DASH for line in lines)]
    return markdown([{name: text for name, text in line.items() if name not in empty} for line in lines])


def headline_cells(run: Run, part: Part) -> dict[str, str]:
    first, total, between = part.summary(FIRST_TOKEN), part.summary(TOTAL), part.between_tokens
    joules, peak = part.largest(lambda answer: answer.joules), part.largest(lambda answer: answer.peak_bytes)
    marks = ("" if run.about["verified"] else " (unverified)") + (" (approximate)" if run.approximate else "")
    return {
        "device": text(run.about["device"]),
        "power mode": text(run.about["power_mode"]),
        "bundle": clean(run.name) + marks,
        "quant": text(run.about["quant"]),
        "encoders": f"{clean(run.about['precision'])} {clean(run.about['provider'])}",
        "workload": text(run.about["workload"]),
        "frames": text(part.frames),
        "prompt": span(part.range_of(lambda answer: answer.prompt_tokens)),
        "new": text(part.new_tokens),
        "phase": part.phase,
        "n": f"{part.questions} × {len(part.answers) / part.questions:.3g}",
        "first token s": plus_minus(first, 1.0),
        "ms/token": bounded(between),
        "tokens/s": DASH if between is None or between.value <= 0 else number(1 / between.value),
        "total s": plus_minus(total, 1.0),
        "peak MB": DASH if peak is None else f"{peak / 1e6:,.0f}",
        "J": DASH if joules is None else number(joules),
    }


def notes(runs: Sequence[Run]) -> list[str]:
    """What the table does not say."""
    lines = ["median ± sd; between tokens with its 95 % interval over questions; n is questions × repetitions"]
    if any(answer.joules is not None for run in runs for answer in run.answers):
        lines[0] += "; J a question at most, of the module's rails, not of the wall"
    for run in runs:
        said = f"{clean(run.source)}, {clean(run.name)}"
        if run.end is None or run.end["reason"] != "complete":
            lines.append(f"{said}: the run is not complete; {len(run.answers)} answers count")
        if run.end is not None and run.end["throttled"]:
            lines.append(f"{said}: the device throttled")
        if run.approximate:
            lines.append(f"{said}: {run.approximate}")
    return ["\n".join(lines)]


def stage_table(run: Run, part: Part) -> str:
    """A line a stage of one phase and length, milliseconds."""
    prompt = span(part.range_of(lambda answer: answer.prompt_tokens))
    counts = f"{text(part.frames)} frames, {prompt} prompt tokens, {text(part.new_tokens)} new"
    whole = part.summary(TOTAL)
    lines = []
    for stage in [*part.stages, *([TOKEN] if part.summary(TOKEN) else [])]:
        summary = part.summary(stage)
        assert summary is not None
        lines.append({"stage": clean(stage), **stage_cells(summary), "share": share(stage, summary, whole)})
    return f"{clean(run.name)}, {part.phase}: {counts}\n\n{markdown(lines)}"


def stage_cells(summary: Summary) -> dict[str, str]:
    names = {"n": "count", "median ms": "median", "mean": "mean", "sd": "sd", "min": "minimum", "max": "maximum"}
    values = {
        title: getattr(summary, name) for title, name in {**names, "p90": "p90", "p95": "p95", "p99": "p99"}.items()
    }
    return {title: str(value) if title == "n" else milliseconds(value) for title, value in values.items()}


def share(stage: str, summary: Summary, whole: Summary | None) -> str:
    parts = whole is not None and whole.median > 0 and stage not in (TOTAL, FIRST_TOKEN, TOKEN)
    return f"{summary.median / whole.median:.1%}" if parts and whole else DASH


def headline(run: Run) -> dict[str, Any]:
    """A run's figures as plain data: what it is of, and one entry a phase and length, seconds and bytes."""
    columns = ("run", "bundle", "started", "device", "power_mode", "quant", "precision", "provider", "workload")
    return {
        **{name: run.about[name] for name in (*columns, "workload_digest", "parity", "verified")},
        "file": str(run.path),
        "complete": run.end is not None and run.end["reason"] == "complete",
        "parts": [part_data(part) for part in run.parts],
    }


def part_data(part: Part) -> dict[str, Any]:
    between = part.between_tokens
    return {
        "phase": part.phase,
        "questions": part.questions,
        "answers": len(part.answers),
        "frames": part.frames,
        "prompt_tokens": part.range_of(lambda answer: answer.prompt_tokens),
        "voxels": part.range_of(lambda answer: answer.voxels),
        "new_tokens": part.new_tokens,
        "between_tokens": None if between is None else asdict(between),
        "peak_bytes": part.largest(lambda answer: answer.peak_bytes),
        "joules": part.largest(lambda answer: answer.joules),
        "stages": {stage: asdict(found) for stage in part.stages if (found := part.summary(stage))},
    }


# comparisons


def comparison_table(comparison: Comparison) -> str:
    """Verdict, reasons, and a line a phase and stage."""
    how = "bundles took turns in one run" if comparison.alternated else "one run after the other"
    left_out = f"; {comparison.unpaired} questions of a phase are in one run only" if comparison.unpaired else ""
    parts = [
        f"{clean(comparison.second)}\nagainst {clean(comparison.first)}",
        "\n".join(map(clean, comparison.differences)),
        markdown([change_cells(change) for change in comparison.changes]),
        f"ratio of medians, question by question, with its 95 % interval; {how}{left_out}",
        "\n".join([verdict(comparison), *map(clean, comparison.reasons)]),
    ]
    return "\n\n".join(part for part in parts if part)


def verdict(comparison: Comparison) -> str:
    """The outcome in one sentence."""
    found = [change for change in comparison.changes if change.verdict == comparison.verdict]
    if comparison.verdict in ("slower", "faster"):
        most = max(found, key=lambda change: abs(change.ratio - 1))
        return (
            f"{comparison.verdict} by more than {percent(comparison.margin)} in {len(found)} lines of "
            f"{len(comparison.changes)}; most in {most.phase} {clean(most.stage)}, by {abs(most.ratio - 1):.1%}"
        )
    return f"{comparison.verdict} at a margin of {percent(comparison.margin)}"


def change_cells(change: Change) -> dict[str, str]:
    bounds = DASH if change.low is None or change.high is None else f"{change.low:.3f} to {change.high:.3f}"
    return {
        "phase": change.phase,
        "stage": clean(change.stage),
        "n": f"{change.questions} × {change.repetitions}",
        "before ms": milliseconds(change.before),
        "after ms": milliseconds(change.after),
        "ratio": f"{change.ratio:.3f}",
        "interval": bounds,
        "verdict": change.verdict,
        "": clean(change.reason),
    }


# cells


def markdown(lines: Sequence[dict[str, str]]) -> str:
    """Lines of cells under their titles, which are those of the first line; figures stand at the right."""
    titles = list(lines[0])
    cells = [titles, *([line[title].replace("|", "\\|") for title in titles] for line in lines)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]

    def joined(texts: Iterable[str]) -> str:
        return f"| {' | '.join(texts)} |"

    def placed(texts: Sequence[str]) -> str:
        aligned = zip(titles, texts, widths, strict=True)
        return joined(cell.ljust(width) if title in LEFT else cell.rjust(width) for title, cell, width in aligned)

    rule = joined(
        "-" * width if title in LEFT else f"{'-' * (width - 1)}:" for title, width in zip(titles, widths, strict=True)
    )
    return "\n".join([placed(cells[0]), rule, *map(placed, cells[1:])])


def clean(value: Any) -> str:
    """A text of somebody's file on one line, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def text(value: Any) -> str:
    return DASH if value is None else clean(value)


def span(bounds: tuple[int, int] | None) -> str:
    """A count, or from the least to the largest of them."""
    if bounds is None:
        return DASH
    return str(bounds[0]) if bounds[0] == bounds[1] else f"{bounds[0]}–{bounds[1]}"


def number(value: float) -> str:
    """Three significant digits or more, never an exponent."""
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:.{decimals}f}"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def milliseconds(seconds: float | None) -> str:
    return DASH if seconds is None else number(seconds * 1e3)


def plus_minus(summary: Summary | None, scale: float) -> str:
    if summary is None:
        return DASH
    spread = DASH if summary.sd is None else number(summary.sd * scale)
    return f"{number(summary.median * scale)} ± {spread}"


def bounded(interval: Interval | None) -> str:
    """Milliseconds with their interval, where there is one."""
    if interval is None:
        return DASH
    value, low, high = map(milliseconds, (interval.value, interval.low, interval.high))
    return value if interval.low is None else f"{value} [{low}, {high}]"


def duration(seconds: float) -> str:
    """A time as people say it, in three digits."""
    if abs(seconds) >= 1:
        return f"{number(seconds)} s"
    return f"{number(seconds * 1e3)} ms" if abs(seconds) >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def short_duration(seconds: float) -> str:
    """A time on an axis."""
    return f"{seconds / 60:.3g} min" if seconds >= 600 else f"{seconds:.3g} s"


def size(held: float) -> str:
    """Bytes as people say them."""
    return f"{held / 1e9:.2f} GB" if held >= 1e9 else f"{held / 1e6:.0f} MB"
