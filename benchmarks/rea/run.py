"""A subset of REA answered by a bundle, sample by sample onto disk; started again, it continues where it stopped."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from ...runtime.console import Progress
from ...runtime.errors import MissingDependency
from ...runtime.session import Session
from .answering import Request, answer_clip
from .dataset import Broken, ReaDataset, Sample, by_clip
from .journal import Journal
from .results import Header, Record, in_order, open_results, write_predictions
from .subset import Shard, Subset
from .swap import swap

__all__ = ["Run", "Task", "answer_and_score", "run_subset"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a run is asked for.

    Attributes:
        request: how samples are answered.
        subset: which samples.
        shard: which part of the subset.
        swapped: what is taken from another room, one of `SWAPS`; None for nothing.
        scheduler: address of a Dask scheduler whose workers answer; None answers here.
    """

    request: Request
    subset: Subset = field(default_factory=Subset)
    shard: Shard = field(default_factory=Shard)
    swapped: str | None = None
    scheduler: str | None = None

    def samples(self, dataset: ReaDataset) -> list[Sample]:
        """Samples of the subset, of every shard; raises BadInput when a choice is not possible."""
        chosen = self.subset.of(dataset.samples)
        return swap(chosen, self.swapped) if self.swapped else chosen


@dataclass(frozen=True)
class Run:
    """What a run has on disk at its end.

    Attributes:
        results: the file of answers.
        records: all answers in it, in the order of the data set.
        answered: how many of them are new.
        broken: samples that could not be answered.
    """

    results: Path
    records: list[Record]
    answered: int
    broken: list[Broken]


def answer_and_score(task: Task, dataset: ReaDataset, out: Path, *, quiet: bool) -> int:
    """Answer a subset with a progress bar and print the score of all its answers; returns how many there are.

    Raises:
        BadInput: as `run_subset`.
    """
    total = sum(map(len, task.shard.of(by_clip(task.samples(dataset)))))
    with Progress(quiet).bar("answer", total) as advance:
        run = run_subset(task, dataset, out, advance=advance)
    LOG.info("%d answers, %d of them new, in %s", len(run.records), run.answered, run.results)
    if run.broken:
        LOG.warning("%d samples were skipped, for the reasons above", len(run.broken))
    if run.records:
        from ..scoring.score import score

        try:
            click.echo(str(score(run.records)))
        except MissingDependency as error:
            LOG.warning("the answers are not scored: %s", error)
    return len(run.records)


def run_subset(
    task: Task, dataset: ReaDataset, out: Path, *, advance: Callable[[int], None] = lambda samples: None
) -> Run:
    """Answer the samples of a subset that `out` has no answers to yet, and write the predictions.

    Args:
        task: which samples, and how.
        dataset: the data set.
        out: folder of `results.jsonl` and `predictions.json`.
        advance: called with the number of samples that are done.

    Raises:
        BadInput: a choice is not possible, or the results in `out` are of something else.
    """
    task.request.check()
    samples = task.samples(dataset)
    if task.scheduler is not None:
        # Dask is an extra, needed only here
        from .scheduler import require_scheduler

        require_scheduler(task.scheduler)
    results = task.shard.file(out, "results", ".jsonl")
    with Session(task.request.bundle, task.request.options) as session:
        session.require_positions(task.request.max_new_tokens)
        request = task.request.settled(session)
        header = describe(task, request, dataset, samples)
        with open_results(results, header) as journal:
            done = {record["id"] for record in journal.items}
            advance(len(done))
            groups = by_clip(samples)
            rest = [[sample for sample in group if sample.id not in done] for group in task.shard.of(groups)]
            found = outcomes(session, [group for group in rest if group], request, task.scheduler)
            broken = store(found, journal, advance)
            records = in_order(header, journal.items)
    write_predictions(task.shard.file(out, "predictions", ".json"), header, records)
    return Run(results, records, len(records) - len(done), broken)


def describe(task: Task, request: Request, dataset: ReaDataset, samples: Sequence[Sample]) -> Header:
    """What the answers of a task are answers to."""
    assert request.digest is not None
    return Header(
        bundle=request.digest,
        rea=dataset.digest,
        options=request.deciding() | {"fps": dataset.fps, "swap": task.swapped},
        subset=task.subset.to_json(),
        ids=[sample.id for sample in samples],
        shard=str(task.shard),
    )


def store(found: Iterable[Record | Broken], journal: Journal, advance: Callable[[int], None]) -> list[Broken]:
    """Append answers as they come; returns the samples that have none."""
    broken = []
    for outcome in found:
        if isinstance(outcome, Broken):
            LOG.warning("skipped %s: %s", outcome.id, outcome.reason)
            broken.append(outcome)
        else:
            journal.append(outcome)
        advance(1)
    return broken


def outcomes(
    session: Session, groups: Sequence[list[Sample]], request: Request, scheduler: str | None
) -> Iterator[Record | Broken]:
    """Answers as they come, from this process or from a scheduler's workers."""
    if scheduler is None:
        for group in groups:
            yield from answer_clip(session, group, request)
    else:
        from .scheduler import distribute

        yield from distribute(scheduler, groups, request)
