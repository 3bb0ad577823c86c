"""One line of a comparison between a bundle and the PyTorch model."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..runtime.bundle.table import STAGES

__all__ = ["Row"]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        part: precision or quantisation.
        stage: stage of the pipeline.
        rel_rms: root mean square of the difference over that of the reference.
        cosine: of the angle between the two.
        passed: whether the limit is kept; None where there is none.
        limit: the limit in words.
        file: the bundle's file that was run.
    """

    part: str
    stage: str
    rel_rms: float
    cosine: float
    passed: bool | None
    limit: str
    file: str = ""

    @classmethod
    def compare(
        cls, part: str, stage: str, ours: np.ndarray, reference: np.ndarray, file: str = "", bounds: str = ""
    ) -> "Row":
        """Compare two arrays of the same shape under the limit of stage and part, or of another part, `bounds`."""
        a, b = (np.asarray(values, np.float64).ravel() for values in (ours, reference))
        rel_rms = float(np.linalg.norm(a - b) / max(np.linalg.norm(b), np.finfo(float).tiny))
        cosine = float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), np.finfo(float).tiny))
        tolerance = STAGES[stage].tolerances.get(bounds or part)
        if tolerance is None:
            return cls(part, stage, rel_rms, cosine, None if np.isfinite(rel_rms) else False, "reported", file)
        return cls(part, stage, rel_rms, cosine, tolerance.holds(rel_rms, cosine), str(tolerance), file)

    def to_json(self) -> dict[str, Any]:
        """The fields, with null for what is not a number."""
        return {key: None if value != value else value for key, value in asdict(self).items()}

    def __str__(self) -> str:
        mark = {True: "✓", False: "✗", None: "·"}[self.passed]
        rel_rms = "" if np.isnan(self.rel_rms) else f"rel-rms {self.rel_rms:.1e}"
        cosine = "" if np.isnan(self.cosine) else f"cosine {self.cosine:.7f}"
        numbers = f"{rel_rms:<15}  {cosine:<16}"
        return f"{mark} {self.part:<7}{self.stage:<8} {numbers}  {self.limit}  {self.file}".rstrip()
