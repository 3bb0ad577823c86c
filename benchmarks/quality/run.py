"""One measurement of quality: from options to rows, a table and a plot."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import click

from ...export.checkpoint.checkpoint import Checkpoint
from ...runtime.bundle.manifest import Bundle
from ...runtime.console import Progress
from ...runtime.errors import BadInput
from ...runtime.options import Options
from ..rea.dataset import ReaDataset
from ..rea.subset import Subset
from .evaluation import Evaluation
from .report import rows, table, words, write

__all__ = ["Task", "measure"]


@dataclass(frozen=True)
class Task:
    """What is measured; fields as the options of `stllm-bench quality`."""

    bundle: Path
    reference: str
    checkpoint: Path | None
    quants: tuple[str, ...]
    options: Options
    frames: int | None

    def evaluation(self, progress: Progress) -> Evaluation:
        """Opened; by default all language models but the reference.

        Raises:
            BadInput: there is nothing to compare.
        """
        opened = Bundle(self.bundle)
        chosen = tuple(dict.fromkeys(self.quants or (name for name in opened.quants if name != self.reference)))
        if not chosen:
            raise BadInput(f"{self.bundle}: holds {self.reference} alone; add others with stllm-export gguf")
        held = self.reference if self.reference in opened.quants else chosen[0]
        options = replace(self.options, resident=True, quant=held)
        source = Checkpoint(self.checkpoint) if self.checkpoint else None
        return Evaluation(opened, self.reference, chosen, options, source, self.frames, progress)


def measure(
    task: Task,
    files: tuple[Path, Path, float | None],
    subset: tuple[str, int],
    out: Path | None,
    *,
    as_json: bool,
    progress: Progress,
) -> None:
    """Measure, and print a table or rows.

    Args:
        task: what.
        files: JSON file of the data set, the folder of its paths, frames a second.
        subset: which samples, and the seed of random ones.
        out: folder for rows and plot.
        as_json: whether rows are printed.
        progress: where to report.
    """
    file, root, fps = files
    dataset = ReaDataset(file, root, fps=fps)
    samples = Subset(subset[0], seed=subset[1]).of(dataset.samples)
    measured, broken = task.evaluation(progress).run(samples)
    about = {
        "bundle": task.bundle.resolve().name,
        "reference": task.reference,
        "rea": dataset.digest,
        "subset": subset[0],
        "seed": subset[1],
        "kv": task.options.kv,
        "skipped": len(broken),
    }
    found = rows(measured, about)
    if out is not None:
        write(found, out)
    if as_json:
        click.echo("\n".join(json.dumps(row, allow_nan=False) for row in found))
        return
    click.echo(table(found))
    for sentence in words(found):
        click.echo(sentence)
