"""One page about some runs: it stands alone, asks for nothing from a network, and has no script.

What is where is told by `report.html.j2`; every text of a run is escaped there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundle.files import atomic_path
from ...runtime.errors import BadInput, MissingDependency
from . import charts
from .compare import Comparison, compare, took_turns
from .runs import FIRST_TOKEN, PHASES, TOKEN, TOTAL, Part, Run
from .table import clean, duration, headline_cells, number, size, stage_cells, text

__all__ = ["MOST_BYTES", "page", "write_page"]

MOST_BYTES = 500_000
# letters of a name above a bar
MOST_NAME = 22
# what the page tells of a run, in this order
FACTS: Mapping[str, Sequence[str]] = {
    "Device": ("device", "board", "power_mode", "governor", "clocks_locked", "cpu", "cores", "gpu", "memory_bytes"),
    "Clocks": ("cpu_hertz", "cpu_hertz_max", "gpu_hertz", "gpu_hertz_max", "memory_hertz"),
    "Software": ("version", "jetpack", "driver", "kernel", "machine", "python"),
    "Model": ("bundle", "bundle_path", "bundle_digest", "precision", "quant", "kv", "flash_attention", "provider",
              "threads", "gpu_layers", "resident", "parity"),
    "Run": ("run", "started", "workload", "workload_digest", "samples", "seed", "noise", "temperature_before",
            "idle_watts", "rails"),
}  # fmt: skip
# how many runs are told in full, and dots a stage; the first that is small enough is taken
DETAIL = ((12, 120), (8, 60), (4, 40), (2, 40), (1, 40), (0, 0))


@dataclass(frozen=True)
class Told:
    """A run as the page shows it."""

    run: Run
    waterfalls: list[charts.Waterfall]
    strips: list[charts.Strips]
    tables: list[tuple[str, list[dict[str, str]]]]
    held: tuple[charts.Bar, ...]
    memory: charts.Plot | None
    sensors: list[tuple[str, charts.Plot | None]]
    facts: list[tuple[str, list[tuple[str, str]]]]


@dataclass(frozen=True)
class Against:
    """A run beside the first one, or why it cannot be."""

    name: str
    comparison: Comparison | None
    forest: charts.Forest | None
    reason: str


def write_page(path: Path, runs: Sequence[Run]) -> None:
    """Write the page; it is whole or not there.

    Raises:
        BadInput: the file cannot be written.
        MissingDependency: jinja2 is not installed.
    """
    whole = page(runs)
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(whole, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); choose another --html") from None


def page(runs: Sequence[Run]) -> str:
    """The page as text, at most 500 kB: of many runs, the first are told in full and the rest in tables.

    Args:
        runs: at least one; the first is what the others are compared with.

    Raises:
        MissingDependency: jinja2 is not installed.
        BadInput: there are more runs than a page holds.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ModuleNotFoundError:
        raise MissingDependency("jinja2 is not installed; pip install 'stllm-edge[bench]'") from None
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["at"] = lambda value: f"{value:.2f}".rstrip("0").rstrip(".")
    environment.filters["short"] = short
    template = environment.get_template("report.html.j2")
    common = {
        "runs": runs,
        "headline": [(run, [headline_cells(run, part) for part in run.parts]) for run in runs],
        "tiles": tiles_of(runs[0]),
        "stacks": [(phase, bars) for phase in PHASES if (bars := charts.stacks(runs, phase))],
        "against": [against(runs[0], run) for run in runs[1:]],
        "kinds": [*charts.KINDS, "other"],
    }
    for full, dots in DETAIL:
        whole = template.render(**common, told=[tell(run, dots) for run in runs[:full]])
        if len(whole.encode()) <= MOST_BYTES:
            return whole
    raise BadInput(f"{len(runs)} runs are more than a page of {MOST_BYTES // 1000} kB holds; give fewer files")


def short(said: str) -> str:
    """A name that leaves room beside it on a phone."""
    return said if len(said) <= MOST_NAME else f"{said[: MOST_NAME - 1]}…"


def against(first: Run, run: Run) -> Against:
    try:
        comparison = compare(first, run)
    except BadInput as error:
        return Against(name(run), None, None, str(error).split(" (")[0].removeprefix(f"{run.path}: "))
    how = "they took turns in one run" if took_turns(first, run) else ""
    return Against(name(run), comparison, charts.forest(comparison), how)


def name(run: Run) -> str:
    return clean(f"{run.name}, {run.about['quant']}, on {run.about['device']}, {run.source}")


def tell(run: Run, dots: int) -> Told:
    parts = [part for phase in PHASES if (part := run.part(phase))]
    held = charts.memory_of_stages(parts[0])
    return Told(
        run,
        waterfalls=[charts.waterfall(part) for part in parts],
        strips=[charts.strips(part, dots) for part in parts],
        tables=[(title(part), table_of(part)) for part in run.parts],
        held=held,
        memory=charts.plot(run.sensors, "byte"),
        sensors=[
            (title, charts.plot(run.sensors, unit))
            for title, unit in (
                ("Temperature", "celsius"),
                ("Clocks", "hertz"),
                ("Power of the module's rails", "watt"),
                ("Machine: time of a fixed piece of work", "second"),
            )
        ],
        facts=facts_of(run),
    )


def tiles_of(run: Run) -> list[tuple[str, str, str]]:
    """Name, figure and what it is of: the headline of a run."""
    found = []
    parts = {phase: part for phase in ("warm", "cold", "repeated") if (part := run.part(phase))}
    for phase, part in parts.items():
        if first := part.summary(FIRST_TOKEN):
            asked = f"{part.questions} questions, {len(part.answers)} answers"
            found.append((f"First token, {phase}", duration(first.median), asked))
    part = next(iter(parts.values()))
    if (between := part.between_tokens) and between.value > 0:
        bounds = "" if between.low is None else f"; {duration(between.low)} to {duration(between.high or 0)}"
        found.append(
            ("Between tokens", duration(between.value), f"{number(1 / between.value)} tokens a second{bounds}")
        )
    if total := part.summary(TOTAL):
        found.append((f"Whole answer, {part.phase}", duration(total.median), f"{text(part.new_tokens)} new tokens"))
    peaks = [peak for one in parts.values() if (peak := one.largest(lambda answer: answer.peak_bytes))]
    if peaks:
        found.append(("Peak memory", size(max(peaks)), "of the stage that holds most"))
    if joules := part.largest(lambda answer: answer.joules):
        found.append((f"Energy, {part.phase}", f"{joules:.3g} J", "a question at most, module rails"))
    return found


def title(part: Part) -> str:
    prompt = part.range_of(lambda answer: answer.prompt_tokens)
    length = "" if prompt is None else f", {prompt[0]} to {prompt[1]} prompt tokens"
    return f"{part.phase}, {text(part.frames)} frames{length}, {text(part.new_tokens)} new"


def table_of(part: Part) -> list[dict[str, str]]:
    return [
        {"stage": "between tokens" if stage == TOKEN else clean(stage), **stage_cells(summary)}
        for stage in [*part.stages, TOKEN]
        if (summary := part.summary(stage))
    ]


def facts_of(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """What is known of a run, by subject; what is absent is said to be."""
    versions = {key: value for key, value in run.about.items() if key.startswith("version_")}
    subjects = {subject: {key: run.about[key] for key in keys} for subject, keys in FACTS.items()}
    subjects["Software"] |= versions
    return [
        (
            subject,
            [(key.removeprefix("version_").replace("_", " "), value_of(key, value)) for key, value in known.items()],
        )
        for subject, known in subjects.items()
    ]


def value_of(key: str, value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if "hertz" in key:
        return f"{value / 1e6:,.0f} MHz"
    return size(value) if key.endswith("_bytes") else f"{value:.4g}" if isinstance(value, float) else clean(value)
