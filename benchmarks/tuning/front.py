"""Which configurations are worth having: the Pareto front of time, memory and answers, with margins.

A configuration *covers* another when it is worse in nothing by more than a margin, and better in something by more
than the margin or, where nothing differs, the more exact of the two. Differences that are smaller, or that the
measurements do not show, another run of the same would not repeat.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..latency.statistics import bootstrap
from ..scoring.metrics import Estimate

__all__ = ["MARGINS", "Column", "Margins", "covers", "front", "median_interval"]

RESAMPLES = 400

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Margins:
    """Least difference that counts.

    Attributes:
        time: of the median ratio of times on the same questions, 0.05 for 5 %.
        memory: of the ratio of memory.
        share: of the shares of answers, 0.01 for a point of a hundred.
    """

    time: float = 0.05
    memory: float = 0.05
    share: float = 0.01


MARGINS = Margins()


@dataclass(frozen=True, eq=False)
class Column:
    """What was measured of one configuration, on the same n questions in the same order as of others.

    Attributes:
        memory: bytes.
        first: [n] float64, seconds to the first text.
        whole: [n] float64, seconds to the end of the answer.
        right: [n] bool, whether the answer is the truth.
        same: [n] bool, whether it is the answer of the most exact configuration.
    """

    memory: int
    first: np.ndarray
    whole: np.ndarray
    right: np.ndarray
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def covers(ours: Column, other: Column, *, more_exact: bool, sure: bool = False, margins: Margins = MARGINS) -> bool:
    """Whether the other configuration is not worth having beside ours.

    Args:
        ours: measured on the same questions.
        other: measured on the same questions.
        more_exact: whether ours is the more exact one of the two.
        sure: whether ours has to be shown to be no slower; else it is enough that it is not shown to be slower. What
            shows it is the 95 % interval of the median ratio on the same questions.
        margins: differences that count.
    """
    allowed = margins.share * len(ours)
    fewer = [int(theirs.sum()) - int(mine.sum()) for mine, theirs in pairs(ours, other, "right", "same")]
    memory = float(np.log(ours.memory / other.memory))
    # cheap ones first: the intervals are what takes time
    if max(fewer) > allowed or memory > np.log1p(margins.memory):
        return False
    ratios = [np.log(mine / theirs) for mine, theirs in pairs(ours, other, "first", "whole")]
    intervals = [median_interval(ratio) for ratio in ratios]
    if max(one.high if sure else one.low for one in intervals) > np.log1p(margins.time):
        return False
    quicker = min(one.high for one in intervals) < -float(np.log1p(margins.time))
    return more_exact or quicker or min(fewer) < -allowed or memory < -float(np.log1p(margins.memory))


def front(
    columns: Sequence[tuple[Name, Column]], *, sure: bool = False, margins: Margins = MARGINS
) -> dict[Name, Name]:
    """By which configuration each is covered; those of the front by themselves.

    Who covers is on the front itself, so nothing is left out for something that is left out.

    Args:
        columns: names and measurements, the most exact first.
        sure: as in `covers`.
        margins: differences that count.
    """

    def covered(ours: int, other: int) -> bool:
        exact = ours < other
        return covers(columns[ours][1], columns[other][1], more_exact=exact, sure=sure, margins=margins)

    return {columns[place][0]: columns[by][0] for place, by in kernel(len(columns), covered).items()}


def kernel(count: int, covered: Callable[[int, int], bool]) -> dict[int, int]:
    """The places that no chosen one covers, and for the others the chosen one that does."""
    places = range(count)
    above = {place: {by for by in places if by != place and covered(by, place)} for place in places}
    chosen: dict[int, int] = {}
    left = list(places)
    while left:
        # margins are not transitive, so three may cover each other in a circle: then the most exact one is taken
        free = [place for place in left if not above[place] & set(left)] or left[:1]
        for place in left:
            if place in free:
                chosen[place] = place
            elif by := above[place] & set(free):
                chosen[place] = min(by)
        left = [place for place in left if place not in chosen]
    return chosen


def pairs(ours: Column, other: Column, *names: str) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(getattr(ours, name), getattr(other, name)) for name in names]


def median_interval(values: np.ndarray, seed: int = 0) -> Estimate:
    """Median of measurements [n] float64 and its 95 % interval, by a bootstrap over them."""
    found = bootstrap(values[:, None], resamples=RESAMPLES, seed=seed)
    low, high = (found.value if bound is None else bound for bound in (found.low, found.high))
    return Estimate(found.value, low, high)
