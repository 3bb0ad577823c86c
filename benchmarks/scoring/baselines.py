"""What answers without looking: the most common answer, and a naive Bayes classifier over the question's words.

With a training split both learn from it. Without, the most common answer is that of the scored questions themselves (an
upper bound: leaving one out would push it below chance on balanced answers, since the one left out is then always the
rarer), and the classifier is cross-validated over ten folds that hold each answer in equal parts, drawn from a seed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from .wording import words

__all__ = ["Example", "majority_answers", "question_only_answers"]

FOLDS = 10
SMOOTHING = 1.0


@dataclass(frozen=True)
class Example:
    """A question, its answer in words, and what the answer means: equal for answers that say the same."""

    query: str
    answer: str
    meaning: Hashable


def majority_answers(scored: Sequence[Example], train: Sequence[Example] | None) -> list[str]:
    """The most common answer, once a scored question."""
    return [typical_answers(scored if train is None else train)[0]] * len(scored)


def question_only_answers(scored: Sequence[Example], train: Sequence[Example] | None, seed: int) -> list[str]:
    """What the words of each scored question suggest."""
    if train is not None:
        predict = naive_bayes(train)
        return [predict(example.query) for example in scored]
    answers = [""] * len(scored)
    fold = folds(scored, seed)
    for number in np.unique(fold):
        known = [example for example, own in zip(scored, fold, strict=True) if own != number]
        if not known:
            continue
        predict = naive_bayes(known)
        for place in np.flatnonzero(fold == number).tolist():
            answers[place] = predict(scored[place].query)
    return answers


def folds(examples: Sequence[Example], seed: int) -> np.ndarray:
    """Fold of each example, [n] int64: every meaning is spread evenly."""
    shuffled = np.random.default_rng(seed).permutation(len(examples)).tolist()
    rank = {meaning: place for place, meaning in enumerate(dict.fromkeys(example.meaning for example in examples))}
    order = sorted(shuffled, key=lambda place: rank[examples[place].meaning])
    fold = np.empty(len(examples), np.int64)
    fold[order] = np.arange(len(examples)) % FOLDS
    return fold


def naive_bayes(train: Sequence[Example]) -> Callable[[str], str]:
    """Multinomial naive Bayes over the distinct words of a question, with add-one smoothing; returns the predictor."""
    vocabulary = {word: column for column, word in enumerate(sorted({w for e in train for w in words(e.query)}))}
    rows = {meaning: row for row, meaning in enumerate(dict.fromkeys(example.meaning for example in train))}
    counts = np.full((len(rows), len(vocabulary)), SMOOTHING, np.float32)
    prior = np.zeros(len(rows), np.float32)
    for example in train:
        row = rows[example.meaning]
        prior[row] += 1
        counts[row, [vocabulary[word] for word in set(words(example.query))]] += 1
    likelihood = np.log(counts / counts.sum(axis=1, keepdims=True))
    log_prior = np.log(prior / len(train))
    typical = dict(zip(rows, answers_by_meaning(train, list(rows)), strict=True))
    meanings = list(rows)

    def predict(query: str) -> str:
        columns = [vocabulary[word] for word in set(words(query)) if word in vocabulary]
        return typical[meanings[int(np.argmax(log_prior + likelihood[:, columns].sum(axis=1)))]]

    return predict


def typical_answers(examples: Sequence[Example]) -> list[str]:
    """The most common wording of each meaning, the most common meaning first."""
    common = Counter(example.meaning for example in examples).most_common()
    return answers_by_meaning(examples, [meaning for meaning, _ in common])


def answers_by_meaning(examples: Sequence[Example], meanings: Sequence[Hashable]) -> list[str]:
    wordings: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    for example in examples:
        wordings[example.meaning][example.answer] += 1
    return [wordings[meaning].most_common(1)[0][0] for meaning in meanings]
