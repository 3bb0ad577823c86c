"""Which questions are asked when: cold in fresh processes, warm until that is stable, then in rounds."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...runtime.errors import BadInput, require_at_least

__all__ = ["Phase", "Schedule", "Step", "is_stable", "steps"]

LEAST_WARM_UPS, STABLE_WITHIN, WINDOW = 3, 0.02, 3
Phase = Literal["cold", "warm", "repeated"]
# of a process that has everything loaded
LOADED: tuple[Phase, Phase] = ("warm", "repeated")


@dataclass(frozen=True)
class Schedule:
    """How often questions are asked.

    Attributes:
        cold: fresh processes, each for the first question.
        most_warm_ups: of the first question, at most, before rounds begin.
        repetitions: rounds over all questions, at least.
        min_seconds: of rounds, at least.
        delay: seconds between two questions.
        cool_to: celsius; the next question waits until no zone is hotter.
    """

    cold: int = 3
    most_warm_ups: int = 10
    repetitions: int = 5
    min_seconds: float = 0.0
    delay: float = 0.0
    cool_to: float | None = None

    def check(self) -> None:
        """Raise BadInput when a number is out of range."""
        require_at_least(
            {
                "--cold": (self.cold, 0),
                "--warm-up": (self.most_warm_ups, LEAST_WARM_UPS),
                "--repetitions": (self.repetitions, 1),
            }
        )
        for option, seconds in {"--min-seconds": self.min_seconds, "--delay": self.delay}.items():
            if not 0 <= seconds < float("inf"):
                raise BadInput(f"{option} {seconds}: expected a number of seconds that is at least 0")


@dataclass(frozen=True)
class Step:
    """A question to ask.

    Attributes:
        bundle: place of the bundle.
        question: place of the question in the workload.
        phase: cold, warm, or repeated, which asks the other question about what the step before looked at.
        repetition: counted from 0, for each bundle, question and phase, warm-ups apart.
        warm_up: whether it does not count.
    """

    bundle: int
    question: int
    phase: Phase
    repetition: int
    warm_up: bool = False


def steps(schedule: Schedule, bundles: int, questions: int, done: Mapping[Step, float]) -> Iterator[Step]:
    """All that is left to do, one after the other; bundles take turns.

    Args:
        schedule: how often.
        bundles: how many.
        questions: how many.
        done: seconds of each step that has been done; a step is in it before the next one is asked for.
    """
    cold = [Step(bundle, 0, "cold", again) for again in range(schedule.cold) for bundle in range(bundles)]
    yield from (step for step in cold if step not in done)
    warmed, again = False, 0
    while again < schedule.repetitions or seconds_of_rounds(done) < schedule.min_seconds:
        round_ = [
            Step(bundle, question, phase, again)
            for question in range(questions)
            for bundle in range(bundles)
            for phase in LOADED
        ]
        if left := [step for step in round_ if step not in done]:
            if not warmed:
                for bundle in range(bundles):
                    yield from warm_ups(schedule, bundle, done)
                warmed = True
            yield from left
        again += 1


def warm_ups(schedule: Schedule, bundle: int, done: Mapping[Step, float]) -> Iterator[Step]:
    """The first question until its time is stable; counted on from the warm-ups of an earlier process."""
    before = [step.repetition for step in done if step.warm_up and step.bundle == bundle]
    first = max(before, default=-1) + 1
    totals: list[float] = []
    while len(totals) < schedule.most_warm_ups and not is_stable(totals):
        warm, repeated = (Step(bundle, 0, phase, first + len(totals), warm_up=True) for phase in LOADED)
        yield warm
        totals.append(done[warm])
        yield repeated


def is_stable(totals: Sequence[float]) -> bool:
    """Whether the median of the last three moved by less than 2 % with the last of at least three."""
    if len(totals) < LEAST_WARM_UPS:
        return False
    before, now = (statistics.median(part[-WINDOW:]) for part in (totals[:-1], totals))
    return abs(now / before - 1) < STABLE_WITHIN


def seconds_of_rounds(done: Mapping[Step, float]) -> float:
    return sum(seconds for step, seconds in done.items() if step.phase in LOADED and not step.warm_up)
