"""Two runs on the same questions, answer by answer."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ...runtime.errors import BadInput
from ..rea.results import Record, read_results
from .wording import normalise

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """How far two runs agree.

    Attributes:
        questions: asked in both.
        identical: share of answers that are the same to the letter, percent.
        ours: share of answers that match the truth, percent.
        reference: the same of the other run.
        differing: ids of the answers that differ.
    """

    questions: int
    identical: float
    ours: float
    reference: float
    differing: list[str]

    def __str__(self) -> str:
        return (
            f"{self.questions} questions: {self.identical:.2f} % of the answers identical; "
            f"{self.ours:.2f} % and {self.reference:.2f} % right, {self.ours - self.reference:+.2f} points"
        )

    def to_json(self) -> str:
        """The fields as one line of JSON."""
        return json.dumps(asdict(self))


def compare(ours: Path, reference: Path) -> Comparison:
    """Compare two results files.

    Raises:
        BadInput: one cannot be read, or they are not about the same questions.
    """
    (first, answers), (second, expected) = read_results(ours), read_results(reference)
    theirs = {record["id"]: record for record in expected}
    if first.rea != second.rea or {record["id"] for record in answers} != theirs.keys():
        raise BadInput(f"{ours}, {reference}: answers to different questions; compare runs of the same subset")
    if not answers:
        raise BadInput(f"{ours}: holds no answers")
    differing = [record["id"] for record in answers if record["pred"] != theirs[record["id"]]["pred"]]
    return Comparison(
        questions=len(answers),
        identical=100 * (1 - len(differing) / len(answers)),
        ours=100 * sum(map(right, answers)) / len(answers),
        reference=100 * sum(map(right, expected)) / len(answers),
        differing=differing,
    )


def right(record: Record) -> bool:
    return normalise(record["pred"]) == normalise(record["gt"])
