"""One search, from options to a table, a plot and a preset."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from ...runtime.bundle.manifest import Bundle
from ...runtime.console import Progress
from ...runtime.encoders.providers import Placement, place
from ...runtime.errors import DoesNotFit, require_at_least
from ...runtime.options import Options
from ...runtime.preset import Measured, Preset
from ..folders import make_folder
from ..latency.machine.board import describe_board
from ..rea.dataset import ReaDataset, Sample, by_clip
from ..rea.subset import Subset
from .bench import Bench
from .candidates import Candidate, Choices, grid
from .limits import Limits
from .records import Header, Recorded, open_records
from .report import figures_of, table, to_json, write_plot
from .search import Found, cut, search

__all__ = ["Task", "find", "machine", "tune_bundles"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a search is asked for.

    Attributes:
        bundles: folders.
        subset: samples to ask about.
        choices: what to choose among.
        limits: what the chosen one must not exceed.
        base: options that all configurations share.
        max_new_tokens: longest answer.
        exhaustive: ask every configuration every question.
    """

    bundles: Sequence[Path]
    subset: Subset = field(default_factory=Subset)
    choices: Choices = field(default_factory=Choices)
    limits: Limits = field(default_factory=Limits)
    base: Options = field(default_factory=Options)
    max_new_tokens: int = 256
    exhaustive: bool = False

    def check(self) -> None:
        """Raise BadInput for a number that cannot be."""
        require_at_least({"--max-new-tokens": (self.max_new_tokens, 1)})
        self.limits.check()
        self.base.check()


def tune_bundles(
    task: Task, dataset: ReaDataset, out: Path, *, preset: Path | None, as_json: bool, quiet: bool
) -> None:
    """Search, print the front, draw it to `front.svg` in `out` and write the preset.

    Args:
        task: what is searched.
        dataset: the questions.
        out: folder of the measurements, which a search continues.
        preset: where the preset goes; by default `preset.json` in `out`.
        as_json: print one JSON object in place of the table.
        quiet: no progress.

    Raises:
        BadInput: an option or the data set cannot be used, or no configuration meets the limits.
        DoesNotFit: no configuration runs here.
    """
    found, new = find(task, dataset, out, quiet=quiet)
    chosen = task.limits.choose([(name, found.columns[name]) for name in found.front]) if found.front else None
    path = preset or out / "preset.json"
    report = to_json(found, chosen, path if chosen else None)
    click.echo(json.dumps(report) if as_json else table(found, chosen))
    if chosen is not None:
        preset_of(task, dataset, found, chosen).write(path)
    elif preset is None:
        # that of an earlier search would be taken for this one's
        path.unlink(missing_ok=True)
    if found.columns:
        write_plot(out / "front.svg", found, chosen)
    LOG.info("%d questions asked of %d configurations, %d of them new", found.asked, len(found.memory), new)
    if chosen is None:
        raise DoesNotFit(f"no configuration meets {task.limits}; the nearest, {nearest(task.limits, found)}")
    LOG.info("%s is chosen and written to %s; the front is drawn in %s", chosen, path, out / "front.svg")


def find(task: Task, dataset: ReaDataset, out: Path, *, quiet: bool = True) -> tuple[Found[Candidate], int]:
    """The search itself, and how many questions were asked now and not before; errors as `tune_bundles`."""
    task.check()
    candidates = grid(task.bundles, task.choices, task.base.flash_attention)
    # a device that is not known, or strictly asked for and not there, is refused before anything is measured
    placed(task.base, candidates[0])
    samples = [sample for clip in shuffled(task.subset.of(dataset.samples), task.subset.seed) for sample in clip]
    rounds = cut([[sample.id for sample in clip] for clip in by_clip(samples)])
    make_folder(out)
    header = Header(dataset.digest, machine(), shared(task, dataset))
    with (
        terse_sessions(),
        Bench(task.base, task.max_new_tokens) as bench,
        open_records(out / "measurements.jsonl", header) as journal,
    ):
        recorded = Recorded(bench, samples, journal, Progress(quiet))
        LOG.info("%d configurations, %d questions, in rounds of %s", len(candidates), len(samples), [*map(len, rounds)])
        try:
            found = search(candidates, rounds, recorded, limits=task.limits, exhaustive=task.exhaustive)
        except KeyboardInterrupt:
            LOG.warning("interrupted; what is measured is kept in %s, run again to continue", out)
            raise
        for question, reason in found.skipped.items():
            LOG.warning("skipped %s: %s", question, reason)
        return found, recorded.measured


def shuffled(samples: Sequence[Sample], seed: int) -> list[list[Sample]]:
    """Samples by clip, the clips in an order of their own, so that the first are like all."""

    def rank(clip: Sequence[Sample]) -> bytes:
        return hashlib.sha256(f"{seed} {clip[0].id}".encode()).digest()

    return sorted(by_clip(samples), key=rank)


def shared(task: Task, dataset: ReaDataset) -> dict[str, object]:
    """What decides measurements beside configuration and question."""
    base = task.base
    return {
        "threads": base.threads,
        "flash_attention": base.flash_attention,
        "device": base.device,
        "gpu_layers": base.gpu_layers,
        "max_new_tokens": task.max_new_tokens,
        "fps": dataset.fps,
    }


def nearest(limits: Limits, found: Found[Candidate]) -> str:
    """The configuration that comes nearest to the limits, and what it has."""
    columns = [(name, column) for name, column in found.columns.items() if limits.excess(column)]
    if limits.memory is not None and all(memory > limits.memory for memory in found.memory.values()):
        name = min(found.memory, key=lambda name: found.memory[name])
        return f"{name}, takes {found.memory[name] / 1e6:.0f} MB"
    name, has = limits.nearest(columns)
    return f"{name}, has {has}"


def preset_of(task: Task, dataset: ReaDataset, found: Found[Candidate], chosen: Candidate) -> Preset:
    """The chosen configuration as a preset."""
    base, figures = task.base, figures_of(found.columns[chosen])
    bounds = {key: getattr(figures, key) for key in ("first", "exact", "agreement")}
    triples = {key: (bound.value, bound.low, bound.high) for key, bound in bounds.items()}
    measured = Measured(
        bundle=chosen.bundle.resolve().name,
        machine=machine(),
        device=placed(base, chosen).name,
        threads=base.threads or len(os.sched_getaffinity(0)),
        rea=dataset.digest,
        questions=figures.questions,
        max_new_tokens=task.max_new_tokens,
        first_token=triples["first"],
        exact=triples["exact"],
        agreement=triples["agreement"],
        answer=figures.answer.value,
        memory=figures.memory,
    )
    return Preset(chosen.digest, chosen.options, measured)


def placed(base: Options, candidate: Candidate) -> Placement:
    """Where the encoders of a candidate run; raises StllmError as `place` does."""
    return place(base.device, base.strict, Bundle(candidate.bundle), candidate.options.precision)


def machine() -> str:
    """Board or processor, power mode where there are some, cores of this process, and memory of the system."""
    found = describe_board()
    mode = [found.power_mode] if found.power_mode else []
    memory = [f"{found.memory_bytes / 1e9:.1f} GB"] if found.memory_bytes else []
    return ", ".join([found.board or found.cpu or found.machine, *mode, f"{found.cores} cores", *memory])


@contextmanager
def terse_sessions() -> Iterator[None]:
    """Of what sessions say each time they look at a clip, warnings are enough, and each of them once."""
    logger, said = logging.getLogger("stllm_edge.runtime"), set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = not record.name.startswith(logger.name) or message not in said
        said.add(message)
        return new

    before, handlers = logger.level, logging.getLogger("stllm_edge").handlers[:]
    logger.setLevel(max(logging.WARNING, logger.getEffectiveLevel()))
    for handler in handlers:
        handler.addFilter(is_new)
    try:
        yield
    finally:
        logger.setLevel(before)
        for handler in handlers:
            handler.removeFilter(is_new)
