"""Options of what calibration starts from, and of what came of it: collecting a set, precisions side by side."""

import json
import sys
from pathlib import Path

import click

from ...runtime.bundle.manifest import ENCODERS, Defaults
from ...runtime.console import FOLDER, Progress, gathered, logging_options, reports_errors, view_options
from ...runtime.options import Recording

__all__ = ["collect", "encoders", "gate"]

# of `forms`, which takes a second to import
FORMS = ("unsigned", "static", "blocks8", "blocks4")


@click.command()
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder; it holds fp32 and others.")
@click.option("--precision", "precisions", multiple=True, help="Beside fp32; by default all that it holds.")
@click.option("--encoder", "only", multiple=True, type=click.Choice(ENCODERS), help="By default all; may repeat.")
@click.option("--form", "forms", multiple=True, type=click.Choice(FORMS), help="Other INT8 products; may repeat.")
@click.option("--scene", type=FOLDER, help="Scene to run on; by default a small one that is built in.")
@click.option("--video", type=FOLDER, help="Clip to run on.")
@view_options
@click.option("--runs", type=int, default=5, show_default=True, help="Pairs of runs.")
@click.option("--threads", type=int, help="CPU threads; by default all cores.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
@gathered(Recording, "recording")
def encoders(
    bundle: Path,
    precisions: tuple[str, ...],
    only: tuple[str, ...],
    forms: tuple[str, ...],
    recording: Recording,
    runs: int,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a bundle's encoders in all precisions, side by side: time, size, memory, error against fp32."""
    from .measure import measure

    rows = measure(bundle, precisions, recording, runs=runs, threads=threads, only=only, forms=forms)
    if as_json:
        click.echo(json.dumps([row.to_json() for row in rows], indent=1))
        return
    for row in rows:
        click.echo(str(row))


@click.command()
@click.option("--ckpt", "checkpoint", type=FOLDER, required=True, help="Checkpoint folder that the set is for.")
@click.option("--rea", type=FOLDER, help="JSON file of REA, or of a data set in its layout.")
@click.option("--root", type=FOLDER, help="Folder that the paths in it are relative to.")
@click.option("--subset", default="all", show_default=True, help="Of the file, as stllm-bench rea run takes it.")
@click.option("--scene", type=FOLDER, help="In the place of --rea: a scene, with --video.")
@click.option("--video", type=FOLDER, help="A clip through that scene.")
@view_options
@click.option("--out", type=FOLDER, required=True, help="Folder of the set; started again, it goes on where it was.")
@click.option("--samples", type=int, default=16, show_default=True, help="Questions; one in four is held out.")
@click.option("--frames", type=int, default=4, show_default=True, help="Frames of each clip.")
@click.option("--voxel-size", type=float, default=0.06, show_default=True, help="Edge of a voxel, metres.")
@click.option("--time-instruction/--no-time-instruction", default=True, show_default=True, help="As at the export.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice.")
@logging_options
@reports_errors
@gathered(Recording, "recording")
@gathered(Defaults, "defaults")
def collect(
    checkpoint: Path,
    rea: Path | None,
    root: Path | None,
    subset: str,
    recording: Recording,
    out: Path,
    samples: int,
    defaults: Defaults,
    seed: int,
    quiet: bool,
) -> None:
    """Collect encoder inputs for calibration: a sample over all types of question and scenes."""
    from ...calib.collection import Collection
    from .candidates import candidates

    collection = Collection.open(out, checkpoint, defaults, seed)
    found = candidates(rea, root, subset, recording, samples)
    collection.run(found, samples, Progress(quiet))
    click.echo(f"{out}: {samples} samples of {defaults.frames} frames")


@click.command()
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder; it holds fp32 and a language model.")
@click.option("--precision", required=True, help="Encoders to hold against fp32.")
@click.option("--calibration", type=FOLDER, required=True, help="Set of stllm-calib collect; its held-out samples.")
@click.option("--quant", help="Language model; by default the bundle's first.")
@click.option("--rea", type=FOLDER, help="JSON file of REA: its questions are answered with both.")
@click.option("--root", type=FOLDER, help="Folder that the paths in it are relative to.")
@click.option("--subset", default="all", show_default=True, help="Of the file, as stllm-bench rea run takes it.")
@click.option("-n", "--max-new-tokens", type=int, default=32, show_default=True, help="Longest answer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def gate(
    bundle: Path,
    precision: str,
    calibration: Path,
    quant: str | None,
    rea: Path | None,
    root: Path | None,
    subset: str,
    max_new_tokens: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Hold encoders against fp32 at the end: the language model's next token, and answers; kept in the manifest."""
    from ...calib.end import compare_logits, record
    from .answers import compare_answers, questions

    asked = questions(rea, root, subset)
    end = compare_logits(bundle, precision, calibration, quant)
    if asked:
        end = compare_answers(bundle, end, asked, quant, max_new_tokens, Progress(quiet))
    record(bundle, end)
    click.echo(json.dumps(end.to_json(), indent=1) if as_json else str(end))
    if not end.passed:
        sys.exit(1)
