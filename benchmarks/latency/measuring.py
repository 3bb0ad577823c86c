"""One command's worth of measuring: bundles and a workload in, rows to disk, tables and a headline to stdout."""

import json
import logging
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from ...runtime.console import Progress
from ...runtime.errors import BadInput, StllmError
from ...runtime.options import Options
from ..reports.runs import read_runs
from .rows import RESULTS
from .run import Run, Task
from .schedule import Schedule
from .store import Store
from .subject import Subject, require_verified
from .workload import Workload

__all__ = ["measure", "this_command"]

LOG = logging.getLogger(__name__)
INTERRUPTED = 130


def measure(
    bundles: Sequence[Path],
    options: Options,
    workload: Workload,
    schedule: Schedule,
    out: Path,
    *,
    seed: int,
    allow_unverified: bool,
    quiet: bool,
) -> None:
    """Measure bundles in turns, and print what was measured, also where it was interrupted.

    Raises:
        BadInput: an option has a value that cannot be used, or `out` holds another run.
        BadBundle: a bundle is damaged, or was not held against the model and that is not allowed.
        StllmError: a process that answers failed; rows before are kept.
    """
    schedule.check()
    subjects = [Subject.of(bundle, options) for bundle in bundles]
    for subject in subjects:
        require_verified(subject, allow_unverified)
    if len({subject.label for subject in subjects}) < len(subjects):
        raise BadInput(f"--against {bundles[-1]}: holds the same files as the first bundle, as they are chosen here")
    settled = workload.settled([subject.bundle.defaults.frames for subject in subjects])
    task = Task(subjects, settled, schedule, this_command(), seed)
    path = out / RESULTS
    answers = 2 * len(subjects) * len(settled.questions) * schedule.repetitions
    with Store.open(path) as store, interruptible(), Progress(quiet).bar("measure", answers) as advance:
        try:
            Run(task, store, advance=advance).measure()
        except StllmError:
            report(path, partial=True)
            raise
        except KeyboardInterrupt:
            report(path, partial=True)
            LOG.warning("interrupted; rows so far are in %s, and the same command goes on", path)
            sys.exit(INTERRUPTED)
    report(path)


def report(path: Path, *, partial: bool = False) -> None:
    """Print tables of a file, and its headline as the last line; nothing of a partial one without an answer."""
    # the layer above these rows
    from ..reports.table import headline, show

    try:
        runs = read_runs([path])
    except BadInput:
        if not partial:
            raise
        return
    click.echo(show(runs, stages=True))
    click.echo(json.dumps({"results": str(path), "runs": [shortened(headline(run)) for run in runs]}))


def shortened(told: Mapping[str, Any]) -> dict[str, Any]:
    """A headline with medians of what is asked for first, seconds, in place of all stages."""
    parts = []
    for part in told["parts"]:
        medians = {f"{stage}_seconds": median(part, stage) for stage in ("first_token", "prefill", "total")}
        parts.append({**{key: value for key, value in part.items() if key != "stages"}, **medians})
    return {**told, "parts": parts}


def median(part: Mapping[str, Any], stage: str) -> float | None:
    found: float | None = part["stages"][stage]["median"] if stage in part["stages"] else None
    return found


def this_command() -> str:
    """What was typed, with the program's name."""
    context = click.get_current_context(silent=True)
    path = context.command_path.split() if context else []
    return shlex.join([*path, *sys.argv[len(path) :]])


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the end that a system asks for be the same as Ctrl-C: rows so far are closed with a last one."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
