"""What repeated measurements say: summaries, the percentiles that their number supports, intervals, drift."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

__all__ = ["Drift", "Interval", "Summary", "bootstrap", "drift", "percentile", "samples_needed", "summarise"]

CONFIDENCE = 0.95
RESAMPLES = 2000
# of percentiles: MLPerf's
EARLY_STOPPING_CONFIDENCE = 0.99
# a change over a run that is worth telling
NOTABLE_DRIFT = 0.02
LEAST_CHANCE = 0.01
# a third of a question's repetitions is one at least
LEAST_REPETITIONS = 3


@dataclass(frozen=True)
class Summary:
    """Repeated measurements of one thing, in their own unit.

    Attributes:
        count: of the measurements.
        median: the middle one.
        mean: their mean.
        sd: sample standard deviation; None of a single one.
        minimum: the least.
        maximum: the largest.
        p90: 90th percentile; None where they are too few for it, as of the two below.
        p95: 95th percentile.
        p99: 99th percentile.
    """

    count: int
    median: float
    mean: float
    sd: float | None
    minimum: float
    maximum: float
    p90: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % confidence interval; the bounds are None where a single group says nothing of others."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Drift:
    """How a run changes while it goes on.

    Attributes:
        change: of the time of the same question, from the first third of its repetitions to the last; 0.1 is 10 % more.
        chance: probability of a trend as clear as this one where there is none, 0..1.
    """

    change: float
    chance: float

    @property
    def found(self) -> bool:
        """Whether there is a trend, and it is worth telling: more than 2 %."""
        return self.chance < LEAST_CHANCE and abs(self.change) > NOTABLE_DRIFT


def summarise(samples: Sequence[float]) -> Summary:
    """Summary of at least one measurement."""
    values = np.asarray(samples, np.float64)
    return Summary(
        count=len(values),
        median=float(np.median(values)),
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
        minimum=float(values.min()),
        maximum=float(values.max()),
        p90=percentile(values, 0.90),
        p95=percentile(values, 0.95),
        p99=percentile(values, 0.99),
    )


def percentile(samples: Sequence[float] | np.ndarray, share: float) -> float | None:
    """The value that a share of the measurements stays below, or None where they are too few to say."""
    return float(np.quantile(samples, share)) if len(samples) >= samples_needed(share) else None


@cache
def samples_needed(share: float, confidence: float = EARLY_STOPPING_CONFIDENCE) -> int:
    """Least number of measurements whose largest bounds a percentile, by MLPerf Inference's early stopping.

    The largest of n is such a bound when n measurements of which each exceeds the percentile with probability 1 - share
    would hold at most one that does, with a chance below 1 - confidence.

    Args:
        share: the percentile in 0..1, both excluded.
        confidence: in 0..1, both excluded.

    >>> [samples_needed(share) for share in (0.90, 0.95, 0.99)]
    [64, 130, 662]
    """
    count = 1
    while share**count + count * (1 - share) * share ** (count - 1) > 1 - confidence:
        count += 1
    return count


def bootstrap(
    groups: Sequence[Sequence[float] | np.ndarray] | np.ndarray,
    statistic: Callable[..., Any] = np.median,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic of measurements that are correlated within groups, as token intervals within an answer.

    Whole groups are drawn, with replacement (the percentile interval of Efron and Tibshirani 1993, section 13.3).

    Args:
        groups: measurements of each group, of any length but none; at least one group.
        statistic: of measurements [..., n] float64 along the last axis, with `axis`.
        resamples: how often groups are drawn.
        seed: of the draws.
    """
    values = [np.asarray(group, np.float64) for group in groups]
    value = float(statistic(np.concatenate(values), axis=-1))
    if len(values) == 1:
        return Interval(value, None, None)
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    if len({len(group) for group in values}) == 1:
        found = statistic(np.stack(values)[draws].reshape(resamples, -1), axis=-1)
    else:
        found = np.array([statistic(np.concatenate([values[place] for place in draw]), axis=-1) for draw in draws])
    return Interval(value, *limits(found))


def limits(resampled: np.ndarray) -> tuple[float, float]:
    """Bounds of the middle 95 % of resampled statistics [n] float64."""
    low, high = np.percentile(resampled, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def drift(seconds: Sequence[float], questions: Sequence[Hashable]) -> Drift | None:
    """Change over a run, each question compared with itself; None unless a question was asked three times.

    Whether it is chance is told by Kendall's test for a trend with the questions as seasons (Hirsch, Slack and Smith
    1982, equations 4 to 7), which asks for no distribution and for no order of the questions.

    Args:
        seconds: a measurement of each answer, in the order of time; above 0.
        questions: what each answer is to; of the same length.
    """
    asked: dict[Hashable, list[float]] = {}
    for question, spent in zip(questions, seconds, strict=True):
        asked.setdefault(question, []).append(spent)
    repeated = [np.array(spent) for spent in asked.values() if len(spent) >= LEAST_REPETITIONS]
    if not repeated:
        return None
    score = sum(float(np.sign(np.triu(spent[None] - spent[:, None])).sum()) for spent in repeated)
    variance = sum(n * (n - 1) * (2 * n + 5) / 18 for n in map(len, repeated))
    # the correction for continuity
    deviations = max(abs(score) - 1, 0.0) / math.sqrt(variance)
    usual = [(spent / np.median(spent), len(spent) // LEAST_REPETITIONS) for spent in repeated]
    first, last = (np.median(np.concatenate(parts)) for parts in zip(*((s[:n], s[-n:]) for s, n in usual), strict=True))
    return Drift(float(last / first) - 1, math.erfc(deviations / math.sqrt(2)))
