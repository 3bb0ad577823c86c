"""One line of a comparison between a bundle and the PyTorch model."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..runtime.bundle.table import Tolerance

__all__ = ["Row", "divergence", "log_probabilities", "relative"]

NAN = float("nan")
TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class Row:
    """One comparison; numbers that it does not have are NaN.

    Attributes:
        part: precision or quantisation.
        stage: stage of the pipeline, or what else was compared.
        passed: whether the limit is kept.
        limit: the limit in words.
        rel_rms: root mean square of the difference over that of the reference.
        cosine: of the angle between the two.
        norm: of ours over that of the reference.
        divergence: mean Kullback-Leibler divergence of the next token's distribution from the reference's, nats.
        agreement: share of positions where both find the same token most probable.
        file: the bundle's file that was run.
    """

    part: str
    stage: str
    passed: bool | None
    limit: str
    rel_rms: float = NAN
    cosine: float = NAN
    norm: float = NAN
    divergence: float = NAN
    agreement: float = NAN
    file: str = ""

    @classmethod
    def compare(
        cls, part: str, stage: str, ours: np.ndarray, reference: np.ndarray, tolerance: Tolerance, file: str = ""
    ) -> "Row":
        """Compare two arrays of the same shape."""
        a, b = (np.asarray(values, np.float64).ravel() for values in (ours, reference))
        norms = float(np.linalg.norm(a)), max(float(np.linalg.norm(b)), TINY)
        rel_rms = relative(a, b)
        cosine, norm = float(a @ b) / max(norms[0] * norms[1], TINY), norms[0] / norms[1]
        return cls(
            part, stage, tolerance.holds(rel_rms, cosine, norm), str(tolerance), rel_rms, cosine, norm, file=file
        )

    def following(self, cost: float, factor: float, *, least: Tolerance, most: float) -> "Row":
        """The same numbers under a limit that follows the model: a multiple of what the format costs PyTorch itself."""
        allowed = most if math.isnan(cost) else min(factor * cost, most)
        tolerance = Tolerance.around(max(allowed, least.rel_rms))
        passed = tolerance.holds(self.rel_rms, self.cosine, self.norm)
        reason = f"{factor:g} times what the format costs this model in PyTorch, {cost:.2g}"
        limit = f"{tolerance}: {reason}, {least.rel_rms:g} to {most:g}"
        return replace(self, passed=passed, limit=limit)

    def with_tokens(self, ours: np.ndarray, reference: np.ndarray) -> "Row":
        """Add what the difference does to the next token; logits [P, vocabulary]."""
        # a position at a time: in float64 all of them would take gigabytes
        total = sum(divergence(mine, other) for mine, other in zip(ours, reference, strict=True))
        agreement = float((ours.argmax(axis=1) == reference.argmax(axis=1)).mean())
        return replace(self, divergence=total / len(ours), agreement=agreement)

    def to_json(self) -> dict[str, Any]:
        """The fields, with null for what is not a number."""
        return {key: None if value != value else value for key, value in asdict(self).items()}

    def __str__(self) -> str:
        mark = {True: "✓", False: "✗", None: "·"}[self.passed]
        columns = (
            column("rel-rms", self.rel_rms, ".1e", 15),
            column("cosine", self.cosine, ".7f", 16),
            column("norm", self.norm, ".6f", 13),
            column("KL", self.divergence, ".1e"),
            column("top-1", self.agreement, ".1%"),
        )
        numbers = "  ".join(text for text in columns if text)
        return f"{mark} {self.part:<6} {self.stage:<8} {numbers}  {self.limit}  {self.file}".rstrip()


def column(name: str, value: float, form: str, width: int = 0) -> str:
    """A number with its name; as much empty space where there is none."""
    return f"{'' if math.isnan(value) else f'{name} {value:{form}}':<{width}}"


def relative(ours: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    a, b = (np.asarray(values, np.float64).ravel() for values in (ours, reference))
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), TINY)


def divergence(ours: np.ndarray, exact: np.ndarray) -> float:
    """Kullback-Leibler divergence of two distributions by their logits [vocabulary], nats."""
    theirs, own = log_probabilities(exact), log_probabilities(ours)
    return float(np.exp(theirs) @ (theirs - own))


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """[..., vocabulary] logits to the logarithms of their probabilities, float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(shifted)
