"""Measurements drawn at random in the place of a bench, and what they lead to without margins or rounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from stllm_edge.benchmarks.tuning.search import Asked, Skipped, Unfit
from stllm_edge.runtime import DoesNotFit

Outcome = Asked | Skipped | Unfit


@dataclass
class Table:
    """What each candidate would answer; counts what it is asked."""

    bytes: dict[str, int]
    answers: dict[str, dict[str, Outcome]]
    asked: list[tuple[str, str]] = field(default_factory=list)

    def memory(self, candidate: str) -> int:
        if candidate not in self.bytes:
            raise DoesNotFit("needs 9 MB, 1 MB are free")
        return self.bytes[candidate]

    def ask(self, candidates: Sequence[str], questions: Sequence[str]) -> Iterator[tuple[str, str, Outcome]]:
        for question in questions:
            for candidate in candidates:
                self.asked.append((candidate, question))
                yield candidate, question, self.answers[candidate][question]


@dataclass(frozen=True)
class Traits:
    """What is true of a candidate: times those of a plain one, bytes, and the share of its answers that went bad."""

    seconds: float
    bytes: int
    bad: float


def drawn_table(traits: dict[str, Traits], questions: list[str], generator: np.random.Generator) -> Table:
    """Answers with these traits, times with 2 % of noise; whoever has more bad ones has those of the others too."""
    plain = generator.uniform(0.5, 2.0, len(questions))
    luck = generator.permutation(len(questions)) / len(questions)
    answers: dict[str, dict[str, Outcome]] = {}
    for name, one in traits.items():
        times = plain * one.seconds * np.exp(generator.normal(0, 0.02, len(questions)))
        answers[name] = {
            question: Asked("bad" if luck[place] < one.bad else "good", luck[place] >= one.bad, time, 1.5 * time)
            for place, (question, time) in enumerate(zip(questions, times.tolist(), strict=True))
        }
    return Table({name: one.bytes for name, one in traits.items()}, answers)


def undominated(traits: dict[str, Traits]) -> set[str]:
    """The Pareto front of the truth; of equal ones the first."""
    names = list(traits)

    def beats(ours: str, other: str) -> bool:
        mine, theirs = traits[ours], traits[other]
        no_worse = mine.seconds <= theirs.seconds and mine.bytes <= theirs.bytes and mine.bad <= theirs.bad
        return no_worse and (mine != theirs or names.index(ours) < names.index(other))

    return {name for name in names if not any(beats(other, name) for other in names if other != name)}


def drawn_traits(generator: np.random.Generator, count: int) -> dict[str, Traits]:
    """Candidates on a coarse grid of times, memory and answers, so that each difference is one that counts."""
    first = Traits(1.0, 10**9, 0.0)
    others = [
        Traits(
            float(generator.choice([0.4, 0.6, 1.0, 1.5])),
            int(generator.choice([5, 7, 10, 14])) * 10**8,
            float(generator.choice([0.0, 0.1, 0.3, 0.5])),
        )
        for _ in range(count - 1)
    ]
    return {f"candidate {place}": traits for place, traits in enumerate([first, *others])}
