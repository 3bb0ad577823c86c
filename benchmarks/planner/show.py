"""An outlook as a table, and as JSON."""

from collections.abc import Iterator, Mapping
from typing import Any

from .devices import THIS, Range
from .growth import Growth
from .plan import Outlook, remedies
from .predict import Prediction
from .subject import Subject

__all__ = ["as_json", "as_text", "growths_json", "growths_text"]

Growths = Mapping[str, Mapping[str, Mapping[str, Growth]]]

# share of the variance that an exponent has to explain
LEAST_FIT = 0.8
MARK = "prediction, not a measurement"


def as_text(found: Outlook, subject: Subject) -> str:
    """Lines for people: what fits, the best of it stage by stage, and where the figures come from."""
    return "\n".join(lines(found, subject))


def lines(found: Outlook, subject: Subject) -> Iterator[str]:
    device, question, idle = found.device, found.question, found.device.idle
    yield f"{device.name}: {device.title}. {MARK}"
    other = f", {found.also / 1e9:.1f} GB for other programs" if found.also else ""
    yield (
        f"memory: {device.visible / 1e9:.1f} GB visible, {gigabytes(idle)} GB taken when idle{other}: "
        f"{found.room / 1e9:.1f} GB for a question"
    )
    yield f"question: {question.frames} frames, {question.voxels} voxels, {question.new_tokens} new tokens"
    yield ""
    stages = " ".join(f"{stage:>7}" for stage in found.rows[0].memory)
    yield f"encoders quant   {stages}  fits  {'first token':>13} {'tokens/s':>13}"
    for row in found.rows:
        memory = " ".join(f"{size / 1e6:7,.0f}" for size in row.memory.values())
        fits = "yes" if row.peak <= found.room else "no"
        yield (
            f"{row.choice.precision:8} {row.choice.quant:7} {memory}  {fits:4}  "
            f"{seconds(row.first_token):>13} {plain(row.tokens_per_second):>13}"
        )
    yield "memory in MB at the peak of each stage; first token with the files in the page cache"
    yield ""
    best = found.best
    if best is None:
        yield f"nothing fits; what would: {'; '.join(remedies(found, subject))}"
        return
    yield f"best that fits: {best.choice}, {best.peak / 1e9:.2f} GB of {found.room / 1e9:.2f} GB"
    slowest = (f"{stage} {milliseconds(taken)}" for stage, taken in best.milliseconds.items() if taken.high)
    yield f"its stages, ms: {', '.join(slowest)}"
    if device.name != THIS:
        yield "where the figures come from:"
        yield from (f"  {what}: {source}" for what, source in device.sources.items())


def as_json(found: Outlook, subject: Subject) -> dict[str, Any]:
    """One device as plain values: bytes and milliseconds."""
    device, best = found.device, found.best
    return {
        "device": device.name,
        "title": device.title,
        "kind": "prediction",
        "visible_bytes": device.visible,
        "idle_bytes": list(device.idle),
        "also_bytes": found.also,
        "room_bytes": found.room,
        "bandwidth": device.bandwidth,
        "flops": dict(device.flops),
        **vars(found.question),
        "rows": [row_json(row, found.room) for row in found.rows],
        "best": None if best is None else {"precision": best.choice.precision, "quant": best.choice.quant},
        "remedies": [] if best else list(remedies(found, subject)),
        "sources": dict(device.sources),
    }


def row_json(row: Prediction, room: int) -> dict[str, Any]:
    return {
        "precision": row.choice.precision,
        "quant": row.choice.quant,
        "memory_bytes": dict(row.memory),
        "peak_bytes": row.peak,
        "fits": row.peak <= room,
        "milliseconds": ranges(row.milliseconds),
        "first_token_ms": rounded(row.first_token),
        "tokens_per_second": rounded(row.tokens_per_second),
    }


def ranges(values: Mapping[str, Range]) -> dict[str, list[float]]:
    return {key: rounded(value) for key, value in values.items()}


def rounded(value: Range) -> list[float]:
    return [round(value.low, 3), round(value.high, 3)]


def gigabytes(value: Range) -> str:
    low, high = f"{value.low / 1e9:.1f}", f"{value.high / 1e9:.1f}"
    return low if low == high else f"{low} to {high}"


def seconds(value: Range) -> str:
    return plain(value * 1e-3) + " s"


def milliseconds(value: Range) -> str:
    return plain(value)


def plain(value: Range) -> str:
    """Both ends with two or three digits; one where they are the same."""
    low, high = (f"{end:.0f}" if end >= 100 else f"{end:.1f}" if end >= 1 else f"{end:.2f}" for end in value)
    return low if low == high else f"{low} to {high}"


def growths_text(found: Growths) -> str:
    """A line for each stage that grows with an axis."""
    units = {"ms": "ms", "peak_mb": "MB"}
    shown = [f"{'axis':9} {'stage':12} {'of':3} {'exponent':>8} {'floor':>9}  variance explained"]
    for axis, quantities in found.items():
        for quantity, stages in quantities.items():
            for stage, growth in stages.items():
                shown.append(
                    f"{axis:9} {stage:12} {units[quantity]:3} {law(growth):>8} {growth.floor:9.1f}  {growth.fit:.3f}"
                )
    return "\n".join(shown)


def law(growth: Growth) -> str:
    """The exponent, or that there is none, or that the noise is larger than what it explains."""
    if not growth.exponent:
        return "none"
    return f"{growth.exponent:.2f}" if growth.fit > LEAST_FIT else "unclear"


def growths_json(found: Growths) -> dict[str, Any]:
    """The same as plain values."""
    return {
        axis: {
            quantity: {
                stage: {key: round(value, 4) for key, value in vars(growth).items()} for stage, growth in stages.items()
            }
            for quantity, stages in quantities.items()
        }
        for axis, quantities in found.items()
    }
