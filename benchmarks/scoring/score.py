"""Scores of answers to REA questions, per type and overall, with intervals, beside answers that do not look."""

import json
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import BadInput, require_at_least
from .baselines import Example, majority_answers, question_only_answers
from .directions import read_direction
from .distances import Distance, read_distance
from .metrics import Bleu, Estimate, Resampling, cider_d, rouge_l, sentence_similarity, wilson
from .predictions import ALL, Record, read_predictions, read_training
from .wording import normalise

__all__ = ["Report", "TypeScore", "score", "score_file"]

OVERALL = "overall"


@dataclass(frozen=True)
class Reader:
    """What answers of a type mean: `read` gives None where a text says nothing definite, `agrees` compares two."""

    read: Callable[[str], Any]
    agrees: Callable[[Any, Any], bool]


READERS = {
    "relative_direction": Reader(read_direction, operator.eq),
    "action_planning": Reader(read_direction, operator.eq),
    "relative_distance": Reader(read_distance, Distance.agrees),
}


@dataclass(frozen=True)
class TypeScore:
    """Scores of one type of question, each with its 95 % interval; shares in 0..1.

    Attributes:
        question_type: the type, or "overall".
        n: questions.
        read: questions whose reference answer a parser of directions or distances reads.
        exact: answers equal to the reference, character by character but for surrounding space.
        normalised: equal without case, punctuation, articles and spacing, numbers as digits.
        parsed: equal in meaning where the reference is read, else normalised.
        majority: the most common answer, judged as `parsed`.
        question_only: a classifier that sees only the question, judged as `parsed`.
        bleu: corpus BLEU-4, 0..100.
        rouge_l: mean ROUGE-L F1, 0..1.
        cider_d: mean CIDEr-D, 0..10, document frequencies over all questions scored.
        similarity: mean cosine of sentence embeddings, or None without sentence-transformers.
    """

    question_type: str
    n: int
    read: int
    exact: Estimate
    normalised: Estimate
    parsed: Estimate
    majority: Estimate
    question_only: Estimate
    bleu: Estimate
    rouge_l: Estimate
    cider_d: Estimate
    similarity: Estimate | None


@dataclass(frozen=True)
class Report:
    """Scores by type, and of all questions together.

    Attributes:
        types: one a type of question, in alphabetical order.
        overall: of all questions.
        trained: what the baselines learned from: "train", or "cross-validation" of the scored questions.
        seed: of the bootstrap and of the folds.
    """

    types: tuple[TypeScore, ...]
    overall: TypeScore
    trained: str
    seed: int

    def __str__(self) -> str:
        scored = [*self.types, self.overall] if len(self.types) > 1 else list(self.types)
        similar = [column for column in SIMILARITIES if getattr(self.overall, column.name) is not None]
        return "\n\n".join([table(scored, ACCURACIES), table(scored, similar), NOTES[self.trained]])

    def to_json(self) -> str:
        """The fields as one line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Column:
    """How a figure is printed."""

    title: str
    name: str
    scale: int = 1
    decimals: int = 1
    interval: bool = True

    def cell(self, row: TypeScore) -> str:
        estimate: Estimate = getattr(row, self.name)
        value, low, high = (
            f"{self.scale * x:.{self.decimals}f}" for x in (estimate.value, estimate.low, estimate.high)
        )
        return f"{value} [{low}, {high}]" if self.interval else value


ACCURACIES = (
    Column("exact %", "exact", 100),
    Column("normalised %", "normalised", 100),
    Column("parsed %", "parsed", 100),
    Column("majority %", "majority", 100, interval=False),
    Column("question only %", "question_only", 100, interval=False),
)
SIMILARITIES = (
    Column("BLEU", "bleu"),
    Column("ROUGE-L", "rouge_l", decimals=3),
    Column("CIDEr-D", "cider_d", decimals=2),
    Column("similarity", "similarity", decimals=3),
)
NOTES = {
    "train": "95 % intervals; majority and question only learned from the training split",
    "cross-validation": "95 % intervals; majority is that of these questions, question only is cross-validated on them",
}


def table(rows: Sequence[TypeScore], columns: Sequence[Column]) -> str:
    """Rows of aligned cells under their titles."""
    cells = [["", "n", *(column.title for column in columns)]]
    cells += [[row.question_type, str(row.n), *(column.cell(row) for column in columns)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def score_file(predictions: Path, *, train: Path | None = None, seed: int = 0) -> Report:
    """Score the answers in a file; `train` is an REA file that the baselines learn from.

    Raises:
        BadInput: a file is not what it has to be, or the seed is negative.
        MissingDependency: sacrebleu or rouge-score is not installed.
    """
    require_at_least({"--seed": (seed, 0)})
    records = read_predictions(predictions)
    return score(records, train=None if train is None else read_training(train), seed=seed)


def score(records: Sequence[Record], *, train: Sequence[Mapping[str, str]] | None = None, seed: int = 0) -> Report:
    """Score answers, offline.

    Args:
        records: answered questions: id, question_type, query, gt (the reference), pred (the answer).
        train: questions for the baselines: question_type, query, gt; None cross-validates on the records.
        seed: of the bootstrap and of the folds.

    Raises:
        BadInput: there are no records, or `train` has no question of a type that is scored.
        MissingDependency: sacrebleu or rouge-score is not installed.
    """
    if not records:
        raise BadInput("there are no answers to score")
    types = np.array([record["question_type"] for record in records])
    columns = outcomes(records) | blind_outcomes(records, types, train, seed)
    references, predictions = ([record[key] for record in records] for key in ("gt", "pred"))
    bleu = Bleu(references, predictions)
    scores = {
        "rouge_l": rouge_l(references, predictions),
        "cider_d": cider_d([[reference] for reference in references], predictions),
    }
    similarity = sentence_similarity(references, predictions)

    def summary(name: str, chosen: np.ndarray) -> TypeScore:
        n = len(chosen)
        resampling = Resampling(n, seed)
        return TypeScore(
            question_type=name,
            n=n,
            read=int(columns["read"][chosen].sum()),
            **{column: wilson(int(columns[column][chosen].sum()), n) for column in columns if column != "read"},
            bleu=resampling.bleu(bleu, chosen),
            **{metric: resampling.mean(values[chosen]) for metric, values in scores.items()},
            similarity=None if similarity is None else resampling.mean(similarity[chosen]),
        )

    return Report(
        types=tuple(summary(name, np.flatnonzero(types == name)) for name in sorted(set(types.tolist()))),
        overall=summary(OVERALL, np.arange(len(records))),
        trained="cross-validation" if train is None else "train",
        seed=seed,
    )


def outcomes(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Which answers match, and which references are read, each [n] bool."""
    return {
        "read": np.array([meaning(record["question_type"], record["gt"]) is not None for record in records]),
        "exact": np.array([record["gt"].strip() == record["pred"].strip() for record in records]),
        "normalised": np.array([normalise(record["gt"]) == normalise(record["pred"]) for record in records]),
        "parsed": np.array([matches(record["question_type"], record["gt"], record["pred"]) for record in records]),
    }


def blind_outcomes(
    records: Sequence[Record], types: np.ndarray, train: Sequence[Mapping[str, str]] | None, seed: int
) -> dict[str, np.ndarray]:
    """Which questions the baselines answer, each [n] bool; they learn each type separately."""
    found = {name: np.zeros(len(records), bool) for name in ("majority", "question_only")}
    for question_type in set(types.tolist()):
        chosen = np.flatnonzero(types == question_type)
        scored = [example(question_type, records[place]) for place in chosen.tolist()]
        known = None if train is None else training_examples(question_type, train)
        answers = {
            "majority": majority_answers(scored, known),
            "question_only": question_only_answers(scored, known, seed),
        }
        for name, given in answers.items():
            pairs = zip(scored, given, strict=True)
            found[name][chosen] = [matches(question_type, one.answer, answer) for one, answer in pairs]
    return found


def training_examples(question_type: str, train: Sequence[Mapping[str, str]]) -> list[Example]:
    examples = [example(question_type, record) for record in train if question_type in (record["question_type"], ALL)]
    if not examples:
        raise BadInput(f"the training split has no question of type {question_type}, which is scored")
    return examples


def example(question_type: str, record: Mapping[str, str]) -> Example:
    says: Hashable = meaning(question_type, record["gt"])
    return Example(record["query"], record["gt"], normalise(record["gt"]) if says is None else says)


def matches(question_type: str, reference: str, answer: str) -> bool:
    """Whether an answer says what the reference says; where that cannot be read, whether it is worded the same."""
    if normalise(reference) == normalise(answer):
        return True
    expected, found = (meaning(question_type, text) for text in (reference, answer))
    return expected is not None and found is not None and READERS[question_type].agrees(found, expected)


def meaning(question_type: str, text: str) -> Any:
    reader = READERS.get(question_type)
    return reader.read(text) if reader else None
