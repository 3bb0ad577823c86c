"""A subset of REA answered by a bundle, sample by sample onto disk; started again, it goes on where it was."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...runtime.errors import BadInput, require_at_least
from ...runtime.options import Options
from ...runtime.session import Session
from .answering import Request, answer_clip
from .dataset import Broken, ReaDataset, Sample, by_clip
from .results import Header, Record, in_order, open_results, write_predictions
from .subset import Subset
from .swap import swap

__all__ = ["Run", "Shard", "run_subset"]

LOG = logging.getLogger(__name__)
SHARD = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count` of a subset; parts are cut between clips."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read i/n; raises BadInput unless 1 <= i <= n."""
        form = SHARD.fullmatch(text)
        shard = cls(*map(int, form.groups())) if form else cls(0, 0)
        if not 1 <= shard.number <= shard.count:
            raise BadInput(f"--shard {text}: expected i/n with 1 <= i <= n, such as 1/4")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, groups: Sequence[list[Sample]]) -> list[list[Sample]]:
        """Every `count`-th group."""
        return list(groups[self.number - 1 :: self.count])

    def file(self, folder: Path, stem: str, suffix: str) -> Path:
        """A file of this shard; the only shard of a run leaves its number out."""
        name = f"{stem}.{self.number}-of-{self.count}" if self.count > 1 else stem
        return folder / f"{name}{suffix}"


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


def run_subset(
    bundle: Path,
    dataset: ReaDataset,
    out: Path,
    *,
    options: Options,
    subset: Subset | None = None,
    shard: Shard | None = None,
    frames: int | None = None,
    max_new_tokens: int = 256,
    fps: float | None = None,
    scheduler: str | None = None,
    swapped: str | None = None,
    advance: Callable[[int], None] = lambda samples: None,
) -> Run:
    """Answer the samples of a subset that `out` has no answers to yet, and write the predictions.

    Args:
        bundle: the bundle's folder.
        dataset: the data set.
        out: folder of `results.jsonl` and `predictions.json`.
        options: of the session.
        subset: which samples; all by default.
        shard: which part of the subset; all by default.
        frames: frames to sample from a clip; None takes the bundle's number.
        max_new_tokens: longest answer.
        fps: what the data set was told, to be recorded.
        scheduler: address of a Dask scheduler whose workers answer; None answers here.
        swapped: what is taken from another room, one of `SWAPS`; None for nothing.
        advance: called with the number of samples that are done.

    Raises:
        BadInput: a choice is not possible, or the results in `out` are of something else.
    """
    subset, shard = subset or Subset(), shard or Shard()
    require_at_least({"--max-new-tokens": (max_new_tokens, 1), "--frames": (frames, 1)})
    samples = subset.of(dataset.samples)
    if swapped:
        samples = swap(samples, swapped)
    groups = shard.of(by_clip(samples))
    if scheduler is not None:
        from .scheduler import require_scheduler

        require_scheduler(scheduler)
    with Session(bundle, options) as session:
        session.require_positions(max_new_tokens)
        options = replace(options, precision=session.setup.precision, quant=session.setup.quant)
        request = Request(bundle.resolve(), session.digest, options, frames, max_new_tokens)
        header = Header(
            bundle=session.digest,
            rea=dataset.digest,
            options=deciding(request) | {"fps": fps, "swap": swapped},
            subset=subset.to_json(),
            ids=[sample.id for sample in samples],
            shard=str(shard),
        )
        with open_results(shard.file(out, "results", ".jsonl"), header) as journal:
            done = {record["id"] for record in journal.items}
            advance(len(done))
            rest = [[sample for sample in group if sample.id not in done] for group in groups]
            broken = []
            for outcome in outcomes(session, [group for group in rest if group], request, scheduler):
                if isinstance(outcome, Broken):
                    LOG.warning("skipped %s: %s", outcome.id, outcome.reason)
                    broken.append(outcome)
                else:
                    journal.append(outcome)
                advance(1)
            records = in_order(header, journal.items)
    write_predictions(shard.file(out, "predictions", ".json"), header, records)
    return Run(shard.file(out, "results", ".jsonl"), records, len(records) - len(done), broken)


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


def deciding(request: Request) -> dict[str, object]:
    """The options that decide answers; how many threads there are and where they run does not."""
    options = request.options
    return {
        "precision": options.precision,
        "quant": options.quant,
        "kv": options.kv,
        "flash_attention": options.flash_attention,
        "frames": request.frames,
        "max_new_tokens": request.max_new_tokens,
    }
