"""Options of stllm-bench quality."""

from pathlib import Path

import click

from ...runtime.console import FOLDER, Progress, gathered, logging_options, peak_memory, reports_errors
from ...runtime.options import Options

__all__ = ["quality"]


@click.command()
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder.")
@click.option("--reference", required=True, help="A language model of the bundle, as F16, or checkpoint.")
@click.option("--ckpt", "checkpoint", type=FOLDER, help="The checkpoint, for --reference checkpoint.")
@click.option("--rea", "file", type=FOLDER, required=True, help="JSON file of the release.")
@click.option("--root", type=FOLDER, required=True, help="Folder that the paths in it are relative to.")
@click.option("--fps", type=float, help="Frames a second; by default as recorded, else EPIC-KITCHENS' 60 or 50.")
@click.option("--quant", "quants", multiple=True, help="Language model to measure; may repeat; by default all others.")
@click.option("--subset", "spec", default="all", show_default=True, help="all, first:N, end:N, random:N or N%.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random:N.")
@click.option("--precision", help="Encoders: by default fp32 where the bundle holds it.")
@click.option("-f", "--frames", type=int, help="Frames to sample; by default the bundle's number.")
@click.option("--threads", type=int, help="CPU threads; by default all cores.")
@click.option("--kv", default="f16", show_default=True, help="Type of keys and values: f16, q8_0 or f32.")
@click.option("--flash-attention/--no-flash-attention", default=None, help="By default libllama decides.")
@click.option("--out", type=FOLDER, help="Folder for results.jsonl and loss.svg.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON lines.")
@logging_options
@reports_errors
@gathered(Options, "options")
def quality(
    bundle: Path,
    reference: str,
    checkpoint: Path | None,
    file: Path,
    root: Path,
    fps: float | None,
    quants: tuple[str, ...],
    spec: str,
    seed: int,
    frames: int | None,
    options: Options,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure what quantisation costs on questions with known answers: divergences, and answers beside them."""
    from .run import Task, measure

    task = Task(bundle, reference, checkpoint, quants, options, frames)
    with peak_memory(quiet):
        measure(task, (file, root, fps), (spec, seed), out, as_json=as_json, progress=Progress(quiet))
