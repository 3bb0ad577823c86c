"""What a configuration must not exceed, and which of those that do not is taken."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ...runtime.errors import BadInput
from ..scoring.metrics import wilson
from .front import Column, median_interval

__all__ = ["Limits", "parse_bytes", "parse_seconds"]

SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "min": 60.0}
BYTES = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
MOST = 2.0**53
QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")

Name = TypeVar("Name")


@dataclass(frozen=True)
class Limits:
    """Bounds that a user sets; None for none.

    Attributes:
        first: most seconds to the first text, as the median of the questions.
        memory: most bytes.
        agreement: least share of the answers that are those of the most exact configuration, 0..1.
    """

    first: float | None = None
    memory: int | None = None
    agreement: float | None = None

    def check(self) -> None:
        """Raise BadInput for a bound that cannot be."""
        if self.agreement is not None and not 0 <= self.agreement <= 1:
            raise BadInput(f"--min-agreement {self.agreement}: expected a share from 0 to 1, such as 0.98")

    def excess(self, column: Column) -> dict[str, float]:
        """By how much each limit is missed, as a share of it, by the options' names."""
        agreement = float(column.same.mean())
        missed = {
            "--max-ttft": self.first and float(np.median(column.first)) / self.first - 1,
            "--max-memory": self.memory and column.memory / self.memory - 1,
            "--min-agreement": self.agreement and (self.agreement - agreement) / self.agreement,
        }
        return {option: share for option, share in missed.items() if share is not None and share > 0}

    def surely_missed(self, column: Column) -> str | None:
        """The first limit that is missed whatever further questions bring, with 95 % confidence."""
        if self.memory is not None and column.memory > self.memory:
            return "--max-memory"
        if self.first is not None and median_interval(column.first).low > self.first:
            return "--max-ttft"
        n = len(column)
        if self.agreement is not None and wilson(int(column.same.sum()), n).high < self.agreement:
            return "--min-agreement"
        return None

    def choose(self, columns: Sequence[tuple[Name, Column]]) -> Name:
        """The one to take among those that meet the limits: the quickest to its first text where a least agreement is
        set, else that with most answers of the most exact configuration, and of these the quickest.
        """

        def key(entry: tuple[Name, Column]) -> tuple[float, float]:
            first, same = float(np.median(entry[1].first)), float(entry[1].same.mean())
            return (first, -same) if self.agreement is not None else (-same, first)

        return min(columns, key=key)[0]

    def nearest(self, columns: Sequence[tuple[Name, Column]]) -> tuple[Name, str]:
        """The one whose worst miss is smallest, and what it has in place of what it should."""
        name, column = min(columns, key=lambda entry: max(self.excess(entry[1]).values(), default=0.0))
        has = {
            "--max-ttft": f"{float(np.median(column.first)):.3g} s to the first text",
            "--max-memory": f"{column.memory / 1e6:.0f} MB",
            "--min-agreement": f"agreement {float(column.same.mean()):.3f}",
        }
        return name, " and ".join(has[option] for option in self.excess(column))

    def __str__(self) -> str:
        stated = {
            "--max-ttft": self.first is not None and f"{self.first:g}s",
            "--max-memory": self.memory is not None and f"{self.memory / 1e6:g}MB",
            "--min-agreement": self.agreement is not None and f"{self.agreement:g}",
        }
        return " ".join(f"{option} {value}" for option, value in stated.items() if value)


def parse_seconds(option: str, text: str | None) -> float | None:
    """Seconds from `5s`, `500ms`, `1min` or a bare number; raises BadInput."""
    return None if text is None else quantity(option, text, SECONDS, "5s or 500ms")


def parse_bytes(option: str, text: str | None) -> int | None:
    """Bytes from `6GB`, `512MiB` or a bare number; raises BadInput."""
    return None if text is None else int(quantity(option, text, BYTES, "6GB or 512MiB"))


def quantity(option: str, text: str, units: Mapping[str, float], example: str) -> float:
    form = QUANTITY.fullmatch(text)
    value = float(form[1]) * units.get(form[2].lower(), 0.0) if form else 0.0
    # a unit that is not known, zero and what no float holds are refused alike
    if not 0 < value < MOST:
        raise BadInput(f"{option} {text}: expected a positive quantity such as {example}")
    return value
