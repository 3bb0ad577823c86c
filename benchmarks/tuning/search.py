"""The search: successive halving over questions, where what another configuration surely covers is asked no more.

All that are left are asked the same questions in each round, whose number doubles from round to round (Jamieson and
Talwalkar 2016, with the Pareto front in the place of the better half). How questions are asked is the caller's.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from ...runtime.errors import BadInput, DoesNotFit
from .front import MARGINS, Column, Margins, front
from .limits import Limits

__all__ = ["Asked", "Drop", "Found", "Measure", "Skipped", "Unfit", "cut", "search"]

LOG = logging.getLogger(__name__)
# the share of the questions in the first round, and their least number: with fewer, anything may cover anything
FIRST_SHARE, LEAST = 1 / 8, 16

Name = TypeVar("Name")


@dataclass(frozen=True)
class Asked:
    """One question answered by one configuration.

    Attributes:
        answer: its text.
        right: whether it is the truth.
        first: seconds to the first text.
        whole: seconds to the end of the answer.
    """

    answer: str
    right: bool
    first: float
    whole: float


@dataclass(frozen=True)
class Skipped:
    """Why a question cannot be asked; it then counts for no configuration."""

    reason: str


@dataclass(frozen=True)
class Unfit:
    """Why a configuration cannot run here; it is asked no more."""

    reason: str


class Measure(Protocol[Name]):
    """What asks; a table of measurements may stand in its place."""

    def memory(self, candidate: Name) -> int:
        """Bytes that are resident at most while a question is answered; raises DoesNotFit where they are not free."""
        ...

    def ask(
        self, candidates: Sequence[Name], questions: Sequence[str]
    ) -> Iterable[tuple[Name, str, Asked | Skipped | Unfit]]:
        """Each question answered by each candidate, in any order; one that is skipped or unfit may end early."""
        ...


@dataclass(frozen=True)
class Drop(Generic[Name]):
    """Why a configuration is not on the front.

    Attributes:
        reason: in words.
        by: what covers it, if something does.
    """

    reason: str
    by: Name | None = None


@dataclass
class Found(Generic[Name]):
    """What a search found.

    Attributes:
        columns: measurements of each candidate, the most exact first, on the questions that it was asked.
        front: the candidates worth having that meet all limits, the most exact first.
        drops: all others.
        memory: bytes that each candidate that runs takes at most.
        asked: questions asked, over all candidates.
        skipped: questions that count for nobody, with the reason.
    """

    columns: dict[Name, Column] = field(default_factory=dict)
    front: list[Name] = field(default_factory=list)
    drops: dict[Name, Drop[Name]] = field(default_factory=dict)
    memory: dict[Name, int] = field(default_factory=dict)
    asked: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> Name:
        """The most exact candidate that runs, which the others are compared with."""
        return next(iter(self.memory))


def cut(clips: Iterable[Sequence[str]], share: float = FIRST_SHARE, least: int = LEAST) -> list[list[str]]:
    """Questions in rounds: each asks as many as all before it together; clips stay whole.

    Args:
        clips: questions about each clip, in the order in which they are asked.
        share: of the questions that the first round has.
        least: questions that it has.
    """
    clips = list(clips)
    total = sum(map(len, clips))
    rounds: list[list[str]] = [[]]
    bound, before = max(total * share, least), 0
    for place, clip in enumerate(clips):
        rounds[-1] += clip
        before += len(clip)
        if before >= bound and place + 1 < len(clips):
            bound *= 2
            # a last round of a few questions would tell nothing new
            if total - before >= LEAST / 2:
                rounds.append([])
    return rounds


def search(
    candidates: Sequence[Name],
    rounds: Sequence[Sequence[str]],
    measure: Measure[Name],
    *,
    limits: Limits | None = None,
    margins: Margins = MARGINS,
    exhaustive: bool = False,
) -> Found[Name]:
    """Find the front.

    Args:
        candidates: the most exact first; answers are compared with those of the first that runs.
        rounds: questions of each round.
        measure: how candidates are asked.
        limits: what a candidate must not exceed.
        margins: differences that count.
        exhaustive: ask every candidate every question.

    Raises:
        BadInput: no question can be asked.
        DoesNotFit: no candidate runs here.
    """
    state: State[Name] = State(limits or Limits(), margins)
    state.weigh(candidates, measure)
    for number, questions in enumerate(rounds):
        state.ask(questions, measure)
        if number + 1 < len(rounds) and not exhaustive:
            state.drop(sure=True)
    state.drop(sure=False)
    found = state.found
    found.front = [name for name in found.columns if name not in found.drops]
    return found


class State(Generic[Name]):
    """What is known so far, and who is still in."""

    def __init__(self, limits: Limits, margins: Margins):
        self.limits, self.margins = limits, margins
        self.found: Found[Name] = Found()
        self.memory: dict[Name, int] = {}
        self.answers: dict[Name, dict[str, Asked]] = {}

    @property
    def left(self) -> list[Name]:
        return [name for name in self.memory if name not in self.found.drops]

    def weigh(self, candidates: Sequence[Name], measure: Measure[Name]) -> None:
        """Find out who runs, and with how much memory."""
        for name in candidates:
            try:
                self.memory[name] = measure.memory(name)
            except DoesNotFit as error:
                self._unfit(name, str(error))
        self._require_some()
        self.answers = {name: {} for name in self.memory}
        self.found.memory = self.memory
        for name, memory in self.memory.items():
            if self.limits.memory is not None and memory > self.limits.memory:
                self.found.drops[name] = Drop("over --max-memory")

    def ask(self, questions: Sequence[str], measure: Measure[Name]) -> None:
        """Ask all that are left, and the most exact one, which the others are compared with."""
        reference = next(iter(self.memory))
        asked = list(dict.fromkeys([reference, *self.left]))
        for name, question, outcome in measure.ask(asked, questions):
            if isinstance(outcome, Asked):
                self.answers[name][question] = outcome
                self.found.asked += 1
            elif isinstance(outcome, Skipped):
                self.found.skipped.setdefault(question, outcome.reason)
            elif name in self.memory:
                del self.memory[name]
                self._unfit(name, outcome.reason)
        self._require_some()
        self._set_columns()

    def _set_columns(self) -> None:
        """Columns of those that have been asked the last questions; others keep theirs."""
        reference = next(iter(self.memory))
        counted = [question for question in self.answers[reference] if question not in self.found.skipped]
        if not counted:
            reason = next(iter(self.found.skipped.values()), "there is none")
            raise BadInput(f"none of the questions can be asked: {reason}")
        columns = {}
        for name, memory in self.memory.items():
            mine, theirs = self.answers[name], self.answers[reference]
            if all(question in mine for question in counted):
                columns[name] = column_of(memory, [(mine[question], theirs[question]) for question in counted])
            elif name in self.found.columns:
                columns[name] = self.found.columns[name]
        self.found.columns = columns

    def drop(self, *, sure: bool) -> None:
        """Leave out what misses a limit and what is covered by one that meets all; with `sure`, only beyond doubt."""
        left = {name: self.found.columns[name] for name in self.left}
        meeting = {}
        for name, column in left.items():
            missed = next(iter(self.limits.excess(column)), None)
            if missed is None:
                meeting[name] = column
            if reason := self.limits.surely_missed(column) if sure else missed:
                self.found.drops[name] = Drop(f"over {reason}" if reason != "--min-agreement" else f"below {reason}")
        for name, by in front([*meeting.items()], sure=sure, margins=self.margins).items():
            if by != name:
                self.found.drops[name] = Drop("as good or better", by)

    def _unfit(self, name: Name, reason: str) -> None:
        LOG.warning("%s: left out: %s", name, reason)
        self.found.drops[name] = Drop(f"does not run here: {reason}")

    def _require_some(self) -> None:
        if not self.memory:
            name, drop = next(iter(self.found.drops.items()))
            raise DoesNotFit(f"none of the {len(self.found.drops)} configurations runs here; {name} {drop.reason}")


def column_of(memory: int, pairs: Sequence[tuple[Asked, Asked]]) -> Column:
    """Measurements of a candidate from its answers beside those of the most exact one."""
    return Column(
        memory=memory,
        first=np.array([mine.first for mine, _ in pairs]),
        whole=np.array([mine.whole for mine, _ in pairs]),
        right=np.array([mine.right for mine, _ in pairs]),
        same=np.array([mine.answer == theirs.answer for mine, theirs in pairs]),
    )
