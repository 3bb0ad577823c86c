"""Options of what calibration starts from, and of what came of it: collecting a set, precisions side by side."""

import json
from pathlib import Path

import click

from ...runtime.bundle.manifest import Defaults
from ...runtime.console import FOLDER, Progress, gathered, logging_options, reports_errors, view_options
from ...runtime.options import Recording

__all__ = ["collect", "encoders"]


@click.command()
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder; it holds fp32 and others.")
@click.option("--precision", "precisions", multiple=True, help="Beside fp32; by default all that it holds.")
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
    recording: Recording,
    runs: int,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a bundle's encoders in all precisions, side by side: time, size, memory, error against fp32."""
    from .measure import measure

    rows = measure(bundle, precisions, recording, runs=runs, threads=threads)
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
