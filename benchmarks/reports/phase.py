"""One phase of two runs: the ratio of each stage, its interval, and what it says.

The ratio of a stage is the median over questions of the ratio of a question's medians. Its interval comes from drawing
questions and repetitions, each with replacement and apart from each other: a busy moment slows all the questions of a
round, and a long question is long in all its rounds (Owen 2007, "The pigeonhole bootstrap").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..latency.statistics import CONFIDENCE, limits
from .runs import TOKEN, Answer

__all__ = ["FASTER", "SAME", "SLOWER", "UNKNOWN", "Change", "Pair", "Phase", "machine_difference"]

SLOWER, FASTER, SAME, UNKNOWN = "slower", "faster", "no difference", "cannot tell"
RESAMPLES = 1000


# fewer do not bound a median with 95 % confidence: 2 * 0.5 ** 6 < 0.05
LEAST_PAIRS = 6
# below, a clock and a scheduler are what is measured (pyperf warns there)
LEAST_SECONDS = 1e-3
MOST_AT_ONCE = 2_000_000
# answers to a question, of the first run and of the second
Pair = tuple[list[Answer], list[Answer]]


@dataclass(frozen=True)
class Change:
    """How the second run does in a stage of a phase.

    Attributes:
        phase: "cold", "warm" or "repeated".
        stage: of the model, or `token` for the time between tokens.
        before: median over questions in the first run, seconds.
        after: the same of the second.
        ratio: median over questions of second to first; above 1 is slower.
        low: lower bound of its 95 % interval, or None where there are too few pairs.
        high: upper bound.
        verdict: "slower", "faster", "no difference" or "cannot tell".
        reason: why it cannot be told, else empty.
        alone: whether its interval by itself is beyond the margin, but among so many figures may be so by chance.
        questions: paired.
        repetitions: of a question, in the run with fewer.
    """

    phase: str
    stage: str
    before: float
    after: float
    ratio: float
    low: float | None
    high: float | None
    verdict: str
    reason: str
    alone: bool
    questions: int
    repetitions: int


class Phase:
    """The answers of one phase, question by question, and which questions and repetitions are drawn of them.

    The draws are the same for all stages. Repetitions are drawn as shares of how often a question was asked, so that
    those of one round stay together.

    Attributes:
        name: "cold", "warm" or "repeated".
        stages: those that all answers of both runs have.
        partial: those that only some have, which are not compared.
    """

    def __init__(self, name: str, pairs: Sequence[Pair], alternated: bool, seed: int, machine: float = 0.0) -> None:
        """Draw.

        Args:
            name: "cold", "warm" or "repeated".
            pairs: answers to each question.
            alternated: whether both runs took turns, so that repetitions are paired.
            seed: of the draws.
            machine: how far the machine itself was from one run to the other, as a share of its speed.
        """
        self.name, self.machine = name, machine
        self.measured = [[[answer.measured for answer in side] for side in pair] for pair in pairs]
        every = [stages for sides in self.measured for side in sides for stages in side]
        self.stages = [stage for stage in every[0] if all(stage in stages for stages in every)]
        self.partial = list(dict.fromkeys(stage for stages in every for stage in stages if stage not in self.stages))
        self.alternated = alternated
        self.counts = np.array([[len(side) for side in pair] for pair in pairs]).T
        if alternated:
            self.counts[:] = self.counts.min(axis=0)
        generator = np.random.default_rng(seed)
        self.questions = generator.integers(0, len(pairs), (RESAMPLES, len(pairs)))
        self.shares = [generator.random((RESAMPLES, int(counts.max()))) for counts in self.counts]
        if alternated:
            self.shares[1] = self.shares[0]

    def sides(self, stage: str) -> list[np.ndarray]:
        """Seconds of both runs, a question a row: [questions, repetitions] float64 each, short rows end in nan."""
        return [
            np.array(
                [
                    [*(stages[stage] for stages in sides[side][:count]), *[np.nan] * (max(counts) - count)]
                    for sides, count in zip(self.measured, counts, strict=True)
                ]
            )
            for side, counts in enumerate(self.counts.tolist())
        ]

    def wander(self, stage: str) -> float:
        """How far a run is from itself, in the run where it is further; what took turns saw the same machine."""
        return 0.0 if self.alternated else max(map(self_difference, self.sides(stage)))

    def take(self, seconds: np.ndarray, side: int, some: slice) -> np.ndarray:
        """Some of the draws from a run: [draws, questions, repetitions] float64."""
        rows = self.questions[some][:, :, None]
        places = self.shares[side][some][:, None, :] * self.counts[side][rows]
        found: np.ndarray = seconds[rows, places.astype(np.int64)]
        return found

    def interval(self, sides: Sequence[np.ndarray]) -> tuple[float, float]:
        """Bounds of the ratio."""
        # so many draws at a time that they stay small in memory
        step = max(1, MOST_AT_ONCE // max(side.size for side in sides))
        parts = [slice(at, at + step) for at in range(0, RESAMPLES, step)]
        drawn = ([self.take(side, place, part) for place, side in enumerate(sides)] for part in parts)
        return limits(np.concatenate([ratio(taken, self.alternated) for taken in drawn]))

    def judge(self, stage: str, wander: float, margin: float, among: int = 1) -> Change:
        """The verdict on one stage, which is among so many that are judged.

        Runs that follow each other see another machine. What a run differs from itself, its first half from its second,
        is what the machine alone does: that of the stage, or of the whole run if it is more. An interval is wider by
        twice as much, since two runs are further apart than two halves of one; or by what a fixed piece of work beside
        the answers took longer in one of the runs, if that is more.
        """
        sides = self.sides(stage)
        before, after = (float(np.median(np.nanmedian(side, axis=1))) for side in sides)
        pairs = int(self.counts.min(axis=0).sum())
        change, low, high, verdict, alone = after / before if before > 0 else 1.0, None, None, UNKNOWN, False
        # the time between tokens is one of many in an answer
        least = 0 if stage == TOKEN else LEAST_SECONDS
        if min(before, after) < least or min(np.nanmin(side) for side in sides) <= 0:
            reason = f"too short to tell: {min(before, after) * 1e3:.2g} ms"
        elif pairs < LEAST_PAIRS:
            reason = f"too few pairs: {pairs}, at least {LEAST_PAIRS} are needed"
        else:
            wander = max(wander, self.wander(stage))
            wider = max((1 + wander) ** 2, 1 + self.machine)
            narrow = self.interval(sides)
            change, low, high = float(ratio(sides, self.alternated)), narrow[0] / wider, narrow[1] * wider
            verdict = verdict_of(low, high, margin)
            alone = verdict in (SLOWER, FASTER) and verdict != verdict_of(*stretched(change, low, high, among), margin)
            verdict = UNKNOWN if alone else verdict
            if alone:
                reason = f"by itself it would be sure, but of {among} figures one may come out so by chance"
            else:
                reason = self.why(sides, wander, low, high, margin) if verdict == UNKNOWN else ""
        counts = len(sides[0]), int(self.counts.min())
        return Change(self.name, stage, before, after, change, low, high, verdict, reason, alone, *counts)

    def why(self, sides: Sequence[np.ndarray], wander: float, low: float, high: float, margin: float) -> str:
        """What makes an interval wide."""
        if high / low < 1 + margin:
            return "the change is about as large as the margin"
        if self.machine > max(margin / 4, (1 + wander) ** 2 - 1):
            return f"the machine was not the same: a fixed spin took {self.machine:.1%} longer in one of the runs"
        if wander > margin / 4:
            return f"a run differs by {wander:.1%} from itself, first half against second"
        spreads = [np.nanmax(np.nanstd(side, axis=1) / np.nanmean(side, axis=1)) for side in sides if side.shape[1] > 1]
        if spreads and max(spreads) > margin / 2:
            return f"repetitions of one question spread by {max(spreads):.0%}"
        return f"questions differ: the change lies between {low - 1:+.0%} and {high - 1:+.0%}"


def ratio(sides: Sequence[np.ndarray], alternated: bool) -> np.ndarray:
    """Median over questions of second to first, from [..., questions, repetitions]; nan is nothing."""
    middle = np.nanmedian if any(np.isnan(side).any() for side in sides) else np.median
    first, second = sides
    each = middle(second / first, axis=-1) if alternated else middle(second, axis=-1) / middle(first, axis=-1)
    found: np.ndarray = np.median(each, axis=-1)
    return found


def self_difference(seconds: np.ndarray) -> float:
    """How far the second half of a run is from its first, beyond what the questions scatter.

    Args:
        seconds: [questions, repetitions] float64, nan at the end; 0 comes of a single repetition.
    """
    half = seconds.shape[1] // 2
    whole = seconds[~np.isnan(seconds).any(axis=1)]
    if not half or not len(whole) or whole.min() <= 0:
        return 0.0
    changes = np.log(np.median(whole[:, -half:], axis=1) / np.median(whole[:, :half], axis=1))
    # two standard errors are what chance does
    return float(np.exp(max(0.0, abs(np.median(changes)) - 2 * median_error(changes)))) - 1


def machine_difference(first: Sequence[float], second: Sequence[float]) -> float:
    """How much longer a fixed piece of work took beside one of two runs; 0 where chance does as much, or none tells."""
    if not first or not second:
        return 0.0
    ours, theirs = np.log(first), np.log(second)
    change = abs(float(np.median(theirs) - np.median(ours)))
    return float(np.exp(change)) - 1 if change > 2 * np.hypot(median_error(ours), median_error(theirs)) else 0.0


def median_error(values: np.ndarray) -> float:
    """Standard error of the median of normal values; 0 of a single one."""
    return float(np.sqrt(np.pi / 2 / len(values)) * values.std(ddof=1)) if len(values) > 1 else 0.0


def stretched(ratio: float, low: float, high: float, among: int) -> tuple[float, float]:
    """An interval so much longer that all of so many hold together as surely as one does (Bonferroni)."""
    one, all_ = (-NormalDist().inv_cdf((1 - CONFIDENCE) / 2 / count) for count in (1, among))
    return ratio * (low / ratio) ** (all_ / one), ratio * (high / ratio) ** (all_ / one)


def verdict_of(low: float, high: float, margin: float) -> str:
    """What an interval of a ratio says at a margin; the same whichever run comes first."""
    if low > 1 + margin:
        return SLOWER
    if high < 1 / (1 + margin):
        return FASTER
    return SAME if low >= 1 / (1 + margin) and high <= 1 + margin else UNKNOWN
