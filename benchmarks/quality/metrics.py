"""Divergences between two language models, position by position, and their summaries with standard errors.

KL divergence, top-1 agreement and the change of the true token's probability are those of llama.cpp's perplexity tool;
here they are of all positions, from float32 logits whose sums are taken in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ...export.comparison import log_probabilities

__all__ = ["LEAST_POSITIONS", "Positions", "Summary", "compare"]

# below so many, percentiles are not given
LEAST_POSITIONS = 100
RESAMPLES = 200
PERCENTILES = {"kl_median": 0.5, "kl_p90": 0.9, "kl_p99": 0.99}
# the exponential of more is no float
MOST_SURPRISE = 700.0


@dataclass(frozen=True)
class Positions:
    """Positions of one question, each array [n].

    Attributes:
        divergence: Kullback-Leibler divergence of the next token's distribution from the reference's, nats, float64.
        agreed: whether both find the same token most probable.
        right: whether the true token is the most probable one; false where none is known.
        change: of the true token's probability; NaN where none is known.
        surprise: minus the logarithm of the true token's probability, nats; NaN where none is known.
        error: sum of squares of the logits' difference from the reference's, float64.
        power: sum of squares of the reference's logits, float64.
    """

    divergence: np.ndarray
    agreed: np.ndarray
    right: np.ndarray
    change: np.ndarray
    surprise: np.ndarray
    error: np.ndarray
    power: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Positions"]) -> "Positions":
        """Several, one after the other."""
        return cls(*(np.concatenate([getattr(part, entry.name) for part in parts]) for entry in fields(cls)))

    def where(self, mask: np.ndarray) -> "Positions":
        """Those of a mask [n]."""
        return Positions(*(getattr(self, entry.name)[mask] for entry in fields(self)))

    def __len__(self) -> int:
        return len(self.divergence)


def compare(ours: np.ndarray, reference: np.ndarray, true: np.ndarray) -> Positions:
    """Compare logits [n, vocabulary] float32; `true` are the next tokens [n], -1 where none is known."""
    mine, theirs = log_probabilities(ours), log_probabilities(reference)
    # the same logits give exactly zero, since the difference is
    divergence = np.einsum("nv,nv->n", np.exp(theirs), theirs - mine)
    best, rows, known = ours.argmax(axis=1), np.arange(len(true)), true >= 0
    own, other = mine[rows, true], theirs[rows, true]
    change = np.where(known, np.exp(own) - np.exp(other), np.nan)
    surprise = np.where(known, -own, np.nan)
    error, power = square(np.subtract(ours, reference, dtype=np.float64)), square(reference.astype(np.float64))
    agreed = best == reference.argmax(axis=1)
    return Positions(divergence, agreed, known & (best == true), change, surprise, error, power)


def square(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("nv,nv->n", rows, rows))


@dataclass(frozen=True)
class Summary:
    """Positions of one class in all questions; standard errors are those of whole clips drawn again.

    Attributes:
        positions: how many.
        questions: of how many questions.
        values: by name: kl_mean, kl_median, kl_p90, kl_p99, kl_max, top1, rms_dp, perplexity, rel_rms
            (of the logits); None where there are too few positions, or none whose true token is known.
        errors: standard errors by the same names; of the maximum there is none.
    """

    positions: int
    questions: int
    values: dict[str, float | None]
    errors: dict[str, float | None]

    @classmethod
    def of(cls, questions: Sequence[Positions], clips: Sequence[int], seed: int = 0) -> "Summary":
        """Summarise questions; `clips` says which of them are about the same clip, and so not independent."""
        whole = Positions.joined(questions)
        groups = np.unique(np.repeat(clips, [len(question) for question in questions]), return_inverse=True)[1]
        figures = Figures(whole, groups)
        count = int(groups.max()) + 1
        values = figures.of(np.ones(count, np.int64))
        errors: dict[str, float | None] = dict.fromkeys(values)
        if count > 1:
            generator = np.random.default_rng(seed)
            drawn = [
                figures.of(np.bincount(generator.integers(0, count, count), minlength=count)) for _ in range(RESAMPLES)
            ]
            for name in values:
                found = [float(value) for sample in drawn if (value := sample[name]) is not None]
                if name != "kl_max" and len(found) > 1:
                    errors[name] = float(np.std(found, ddof=1))
        return cls(len(whole), len(questions), values, errors)


class Figures:
    """All figures of positions whose groups count so many times each."""

    def __init__(self, found: Positions, groups: np.ndarray):
        """Sort and sum once; `groups` are the numbers [n] of the positions' groups."""
        known = ~np.isnan(found.change)
        order = np.argsort(found.divergence)
        self._sorted, self._groups, self._positions = found.divergence[order], groups[order], len(found)
        self._sums = np.stack(
            [
                np.bincount(groups, values)
                for values in (
                    np.ones(len(found)),
                    found.divergence,
                    found.agreed.astype(float),
                    known.astype(float),
                    np.where(known, found.change, 0) ** 2,
                    np.where(known, found.surprise, 0),
                    found.error,
                    found.power,
                )
            ]
        )

    def of(self, times: np.ndarray) -> dict[str, float | None]:
        """The figures where each group counts so many times."""
        count, divergence, agreed, known, squares, surprise, error, power = map(float, self._sums @ times)
        figures: dict[str, float | None] = {"kl_mean": divergence / count, "kl_max": float(self._sorted[-1])}
        figures |= dict.fromkeys(PERCENTILES)
        if self._positions >= LEAST_POSITIONS:
            reached = np.cumsum(times[self._groups])
            for name, share in PERCENTILES.items():
                figures[name] = float(self._sorted[np.searchsorted(reached, share * reached[-1])])
        return figures | {
            "top1": agreed / count,
            "rms_dp": math.sqrt(squares / known) if known else None,
            "perplexity": math.exp(min(surprise / known, MOST_SURPRISE)) if known else None,
            "rel_rms": math.sqrt(error / power) if power else None,
        }
