"""Runs as their rows tell them: what was measured on what, and how long each question took in each stage."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from ...runtime.errors import BadInput
from ..latency.machine.sensors import SECOND
from ..latency.machine.spin import SPIN
from ..latency.rows import RESULTS, Row, read_rows
from ..latency.statistics import Interval, Summary, bootstrap, summarise

__all__ = ["FIRST_TOKEN", "PHASES", "TOKEN", "TOTAL", "Answer", "Part", "Run", "read_run", "read_runs"]

LOG = logging.getLogger(__name__)
PHASES = ("cold", "warm", "repeated")
TOTAL, FIRST_TOKEN = "total", "first_token"
# no stage: the usual time between the tokens of an answer; what they take together is `decode` and `sampling`
TOKEN = "token"
# prompts count as one length where the longest is at most so much longer than the shortest
ALIKE = 1.02
MEMORY = ("anonymous_bytes", "file_bytes", "gpu_bytes")


@dataclass(frozen=True)
class Answer:
    """One question answered once.

    Attributes:
        phase: "cold", "warm" or "repeated".
        sample: id of the question.
        repetition: how often it was asked before in this phase.
        frames: of the clip; None where a row does not tell, as below.
        voxels: of the scene.
        prompt_tokens: positions of the prompt.
        reused_tokens: those that were not computed again.
        new_tokens: of the answer.
        finish_reason: why the answer ended.
        seconds: by stage, in the order of the rows; `total` is wall time.
        items: how many units a stage worked on, by stage; None where it has none.
        units: what they are.
        memory: anonymous, file-backed and GPU bytes by stage; None where they were not read.
        joules: of the whole question, or None.
        intervals: seconds between its tokens, [new_tokens - 1].
    """

    phase: str
    sample: str
    repetition: int
    frames: int | None
    voxels: int | None
    prompt_tokens: int | None
    reused_tokens: int | None
    new_tokens: int | None
    finish_reason: str | None
    seconds: Mapping[str, float]
    items: Mapping[str, int | None]
    units: Mapping[str, str | None]
    memory: Mapping[str, tuple[int | None, ...]]
    joules: float | None
    intervals: tuple[float, ...] = ()

    @property
    def work(self) -> tuple[int | None, ...]:
        """What has to be the same for two answers to be compared."""
        return self.frames, self.voxels, self.prompt_tokens, self.reused_tokens, self.new_tokens

    @property
    def measured(self) -> dict[str, float]:
        """Seconds by stage, and the median of those between tokens."""
        between = {TOKEN: median(self.intervals)} if self.intervals else {}
        return {**self.seconds, **between}

    @property
    def peak_bytes(self) -> int | None:
        """The most that a stage held, of all kinds together, or None."""
        held = [sum(kind or 0 for kind in kinds) for kinds in self.memory.values() if any(kinds)]
        return max(held, default=None)


@dataclass(frozen=True)
class Part:
    """Answers of one phase to prompts of one length: what may be summarised together.

    Attributes:
        phase: of all of them.
        answers: in the order of the run; at least one.
    """

    phase: str
    answers: tuple[Answer, ...]

    @property
    def frames(self) -> int | None:
        return self.answers[0].frames

    @property
    def new_tokens(self) -> int | None:
        return self.answers[0].new_tokens

    @property
    def questions(self) -> int:
        return len({answer.sample for answer in self.answers})

    @property
    def stages(self) -> list[str]:
        """Names of the stages, in the order of the rows."""
        return list(dict.fromkeys(stage for answer in self.answers for stage in answer.seconds))

    def range_of(self, count: Callable[[Answer], int | None]) -> tuple[int, int] | None:
        """Least and largest of a count, or None where no answer has it."""
        known = [number for number in map(count, self.answers) if number is not None]
        return (min(known), max(known)) if known else None

    def seconds(self, stage: str) -> list[float]:
        return [answer.measured[stage] for answer in self.answers if stage in answer.measured]

    def summary(self, stage: str) -> Summary | None:
        """Of a stage, or of the time between tokens; None where it was not measured."""
        seconds = self.seconds(stage)
        return summarise(seconds) if seconds else None

    @cached_property
    def between_tokens(self) -> Interval | None:
        """Median seconds between two tokens, with an interval over questions; None for answers of one token."""
        groups: dict[str, list[float]] = {}
        for answer in self.answers:
            groups.setdefault(answer.sample, []).extend(answer.intervals)
        heard = [group for group in groups.values() if group]
        return bootstrap(heard) if heard else None

    def largest(self, value: Callable[[Answer], Any]) -> Any:
        """The largest of a value that answers may lack, or None."""
        return max((found for answer in self.answers if (found := value(answer)) is not None), default=None)


@dataclass(frozen=True, eq=False)
class Run:
    """What one bundle did in one run; complete answers only, warm-up left out.

    Attributes:
        path: the file.
        about: the row that tells what was measured on what.
        answers: in the order of the file.
        sensors: rows of readings.
        end: the last row, or None of a run that was cut off.
        alternated: bundles that took turns in the run.
        unfinished: answers that were begun and are left out.
    """

    path: Path
    about: Row
    answers: tuple[Answer, ...]
    sensors: tuple[Row, ...]
    end: Row | None
    alternated: int = 1
    unfinished: int = 0

    @property
    def name(self) -> str:
        """What a table calls it: the bundle by its folder."""
        return Path(self.about["bundle_path"]).name or self.about["bundle"]

    @property
    def approximate(self) -> str:
        """What its answers owe to approximate reuse, in words; empty where all is exact."""
        share = self.about.get("recompute")
        if share is None:
            return ""
        return f"approximate: further questions keep the video's keys and values but for {share:.0%} (--reuse-video)"

    @property
    def source(self) -> str:
        """The file and the folder that it is in: files of many runs have the same name."""
        return "/".join(self.path.parts[-2:])

    @property
    def spins(self) -> list[float]:
        """Seconds of a fixed piece of work before each answer, by which the machine is held against itself."""
        values = [row["value"] for row in self.sensors if row["sensor"] == SPIN and row["unit"] == SECOND]
        return [value for value in values if value]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Answers by phase, frames, length of the answer and of the prompt, shortest first."""
        return tuple(
            Part(phase, tuple(alike))
            for phase in PHASES
            for alike in by_length([answer for answer in self.answers if answer.phase == phase])
        )

    def part(self, phase: str) -> Part | None:
        """The part of a phase with most answers."""
        found = [part for part in self.parts if part.phase == phase]
        return max(found, key=lambda part: len(part.answers), default=None)


def by_length(answers: Sequence[Answer]) -> Iterable[list[Answer]]:
    """Answers of the same numbers of frames and new tokens, and of prompts that differ by at most 2 %."""
    kinds: dict[tuple[int, int], list[Answer]] = {}
    for answer in answers:
        kinds.setdefault((answer.frames or 0, answer.new_tokens or 0), []).append(answer)
    for _, kind in sorted(kinds.items()):
        bounds: list[int] = []
        for length in sorted({answer.prompt_tokens or 0 for answer in kind}):
            if not bounds or length > bounds[-1] * ALIKE:
                bounds.append(length)
        for low, high in zip(bounds, [*bounds[1:], float("inf")], strict=True):
            yield [answer for answer in kind if low <= (answer.prompt_tokens or 0) < high]


def read_run(path: Path) -> Run:
    """The only run of a file.

    Raises:
        BadInput: as `read_runs`, or the file holds several.
    """
    runs = read_runs([path])
    if len(runs) > 1:
        names = ", ".join(f"{run.name} of {run.about['started']}" for run in runs)
        raise BadInput(f"{path}: holds {len(runs)} runs ({names}); expected one")
    return runs[0]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs in some files, or folders of `stllm-bench latency`, a bundle at a time, in the order given.

    Raises:
        BadInput: a file cannot be read, is of another schema, or holds no complete answer.
    """
    files = [path / RESULTS if path.is_dir() else path for path in paths]
    return [run for file in files for run in runs_of(file, read_rows(file))]


def runs_of(path: Path, rows: Sequence[Row]) -> list[Run]:
    """The runs whose rows these are; a run that was resumed has several first rows, of which the first counts."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["run"], row["bundle"]), []).append(row)
    about = {key: row for key, group in groups.items() for row in reversed(group) if row["kind"] == "run"}
    if strangers := [key for key, group in groups.items() if key not in about and has_answers(group)]:
        raise BadInput(f"{path}: the row that tells of run {strangers[0][0]} is missing; give the whole file")
    runs = []
    for (run, bundle), first in about.items():
        kinds = {
            kind: [row for row in groups[run, bundle] if row["kind"] == kind] for kind in ("stage", "interval", "end")
        }
        answers, unfinished = answers_of(kinds["stage"], kinds["interval"])
        if unfinished:
            LOG.info("%s: %d answers were not finished and do not count", path, unfinished)
        if answers:
            sensors = tuple(row for row in rows if row["kind"] == "sensor" and row["run"] == run)
            alternated = sum(other == run for other, _ in about)
            last = kinds["end"][-1] if kinds["end"] else None
            runs.append(Run(path, first, answers, sensors, last, alternated, unfinished))
    if not runs:
        raise BadInput(f"{path}: holds no complete answer; run stllm-bench latency until one is measured")
    return runs


def has_answers(rows: Iterable[Row]) -> bool:
    return any(row["kind"] in ("stage", "interval") for row in rows)


def answers_of(stages: Sequence[Row], intervals: Sequence[Row]) -> tuple[tuple[Answer, ...], int]:
    """Answers whose rows are all there, `total` among them, and how many are not."""
    found: dict[tuple[str, str, int], dict[str, Row]] = {}
    between: dict[tuple[str, str, int], dict[int, float]] = {}
    for row in stages:
        if not row["warm_up"]:
            found.setdefault(key_of(row), {})[row["stage"]] = row
    for row in intervals:
        if not row["warm_up"]:
            between.setdefault(key_of(row), {})[row["index"]] = row["seconds"]
    complete = [
        answer_of(rows, [spent for _, spent in sorted(between.get(key, {}).items())])
        for key, rows in found.items()
        if TOTAL in rows
    ]
    return tuple(complete), len(found) - len(complete)


def key_of(row: Row) -> tuple[str, str, int]:
    return row["phase"], row["sample"], row["repetition"]


def answer_of(rows: Mapping[str, Row], intervals: Sequence[float]) -> Answer:
    total = rows[TOTAL]
    counts = ("frames", "voxels", "prompt_tokens", "reused_tokens", "new_tokens", "finish_reason", "joules")
    return Answer(
        **{name: total[name] for name in ("phase", "sample", "repetition", *counts)},
        seconds={stage: row["seconds"] for stage, row in rows.items()},
        items={stage: row["items"] for stage, row in rows.items()},
        units={stage: row["unit"] for stage, row in rows.items()},
        memory={stage: tuple(row[kind] for kind in MEMORY) for stage, row in rows.items()},
        intervals=tuple(intervals),
    )
