"""Whether an encoder may be used: its outputs on held-out inputs against limits that stand in one file."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from ...runtime.bundle.table import Tolerance
from ..comparison import Row

__all__ = ["END", "Judgement", "gate", "judge"]

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

END = "end"


@cache
def limits() -> dict[str, dict[str, float]]:
    """The file's tables."""
    return dict(tomllib.loads(files(__package__).joinpath("gates.toml").read_text(encoding="utf-8")))


def gate(form: str) -> dict[str, float]:
    """The limits of a number format, or those of the end."""
    return limits()[form]


@dataclass(frozen=True)
class Judgement:
    """One graph on all held-out inputs.

    Attributes:
        row: the comparison, over all inputs together.
        overflows: values of its output that are not finite.
    """

    row: Row
    overflows: int

    @property
    def passed(self) -> bool:
        return bool(self.row.passed) and not self.overflows

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return self.row.to_json() | {"passed": self.passed, "overflows": self.overflows}

    def __str__(self) -> str:
        return f"{self.row}" + (f"; {self.overflows} values are not finite" if self.overflows else "")


def judge(form: str, stage: str, file: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Judgement:
    """Hold outputs against those of float32; pairs of ours and theirs, one an input."""
    ours, theirs = (np.concatenate([np.ravel(array) for array in arrays]) for arrays in zip(*pairs, strict=True))
    limit = Tolerance(**gate(form))
    overflows = int((~np.isfinite(ours)).sum())
    finite = np.nan_to_num(ours, nan=0.0, posinf=0.0, neginf=0.0) if overflows else ours
    row = Row.compare(form, stage, finite, theirs, limit, file)
    return Judgement(row, overflows)
