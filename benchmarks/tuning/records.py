"""Measurements on disk: a journal that a search continues from, whatever its candidates, limits and rounds."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ...runtime.bundle.values import typed
from ...runtime.console import Progress
from ...runtime.errors import BadInput, DoesNotFit
from ...runtime.preset import PresetOptions
from ..rea.dataset import Sample, by_clip
from ..rea.journal import Item, Journal
from ..scoring.compare import right
from .bench import Answered, Bench
from .candidates import Candidate
from .search import Asked, Skipped, Unfit

__all__ = ["Header", "Recorded", "open_records"]

LOG = logging.getLogger(__name__)
SCHEMA = 1
# samples with which a candidate may fail before it is left out
MOST_TRIES = 4


@dataclass(frozen=True)
class Header:
    """What measurements are of.

    Attributes:
        rea: digest of the data set's file.
        machine: where they are made.
        options: what all configurations share.
        schema: of this format.
    """

    rea: str
    machine: str
    options: dict[str, Any]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Line:
    """One measurement: of a question, or of memory.

    Attributes:
        digest: of the parts of the bundle.
        candidate: the options.
        id: of the question; None for memory.
        pred: its answer.
        first: seconds to its first text.
        whole: seconds to its end.
        memory: bytes at the peak.
    """

    digest: str
    candidate: PresetOptions
    id: str | None = None
    pred: str = ""
    first: float = 0.0
    whole: float = 0.0
    memory: int = 0

    def __post_init__(self) -> None:
        sound = self.memory > 0 if self.id is None else 0 < self.first <= self.whole
        if not sound:
            raise ValueError("figures that cannot be")


@contextmanager
def open_records(path: Path, header: Header) -> Iterator[Journal]:
    """Create a journal, or continue one of the same header.

    Raises:
        BadInput: it is damaged, of something else, or being written by another process.
    """

    def read(whole: bytes) -> list[Item]:
        lines = whole.splitlines()
        try:
            found, expected = flat(json.loads(lines[0])["header"]), flat(asdict(header))
            differing = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadInput(f"{path}: its first line is no header; give another --out") from None
        if differing:
            key = differing[0]
            reason = f"{key} {brief(found.get(key))}, not {brief(expected.get(key))}"
            raise BadInput(f"{path}: is from another measurement ({reason}); give another --out")
        return [read_line(path, number, line) for number, line in enumerate(lines[1:], start=2)]

    with Journal.open(path, asdict(header), read) as journal:
        yield journal


def flat(header: Mapping[str, Any]) -> dict[str, Any]:
    """A header with its options beside the rest."""
    rest = {key: value for key, value in header.items() if key != "options"}
    return {**rest, **header["options"]}


def read_line(path: Path, number: int, line: bytes) -> Item:
    try:
        item: Item = json.loads(line)
        typed(Line, item, "line")
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: line {number} is damaged ({error}); delete that line to measure again") from None
    return item


def brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Recorded:
    """A bench whose measurements are kept: what a journal holds is not measured again."""

    def __init__(self, bench: Bench, samples: Sequence[Sample], journal: Journal, progress: Progress):
        """Take over what the journal holds; `samples` are all that may be asked."""
        self.bench, self.journal, self.progress = bench, journal, progress
        self.samples = {sample.id: sample for sample in samples}
        self.measured = 0
        self._memory: dict[tuple[str, PresetOptions], int] = {}
        self._asked: dict[tuple[str, PresetOptions, str], Asked] = {}
        for item in journal.items:
            self._take(typed(Line, item, "line"))

    def memory(self, candidate: Candidate) -> int:
        """As `search.Measure` has it: of the first sample that can be asked, if one of the first few can."""
        key = candidate.digest, candidate.options
        if key in self._memory:
            return self._memory[key]
        reasons: list[str] = []
        for sample in islice(self.samples.values(), MOST_TRIES):
            try:
                memory: int = self._keep(Line(*key, memory=self.bench.memory(candidate, sample)))
            except BadInput as error:
                reasons.append(str(error))
            else:
                return memory
        raise DoesNotFit(f"it cannot be asked {sample.id}: {reasons[-1]}")

    def ask(
        self, candidates: Sequence[Candidate], questions: Sequence[str]
    ) -> Iterator[tuple[Candidate, str, Asked | Skipped | Unfit]]:
        """As `search.Measure` has it, a clip after the other."""
        unfit: set[Candidate] = set()
        LOG.info("%d questions to %d configurations", len(questions), len(candidates))
        with self.progress.bar("ask", len(questions)) as advance:
            for clip in by_clip(self.samples[question] for question in questions):
                wanted: dict[Candidate, list[Sample]] = {}
                for candidate in candidates:
                    for sample in clip:
                        if known := self._asked.get((candidate.digest, candidate.options, sample.id)):
                            yield candidate, sample.id, known
                        elif candidate not in unfit:
                            wanted.setdefault(candidate, []).append(sample)
                yield from self._measure(wanted, unfit)
                advance(len(clip))

    def _measure(
        self, wanted: Mapping[Candidate, Sequence[Sample]], unfit: set[Candidate]
    ) -> Iterator[tuple[Candidate, str, Asked | Skipped | Unfit]]:
        for candidate, sample, outcome in self.bench.ask(wanted):
            if isinstance(outcome, Answered):
                first, whole = round(outcome.first, 6), round(outcome.whole, 6)
                line = Line(candidate.digest, candidate.options, sample.id, outcome.text, first, whole)
                yield candidate, sample.id, self._keep(line)
                self.measured += 1
                continue
            if isinstance(outcome, Unfit):
                unfit.add(candidate)
            yield candidate, sample.id, outcome

    def _keep(self, line: Line) -> Any:
        self.journal.append(asdict(line))
        return self._take(line)

    def _take(self, line: Line) -> Any:
        if line.id is None:
            self._memory[line.digest, line.candidate] = line.memory
            return line.memory
        # of another subset
        if line.id not in self.samples:
            return None
        truth = right({"pred": line.pred, "gt": self.samples[line.id].answer})
        asked = Asked(line.pred, truth, line.first, line.whole)
        self._asked[line.digest, line.candidate, line.id] = asked
        return asked
