"""Options of stllm-bench: checkpoints and rooms of any size, and measurements on them."""

from pathlib import Path
from typing import Any

import click

from ..export.commands import checkpoint_options
from ..runtime.console import FOLDER, gathered, logging_options, reports_errors, view_options
from ..runtime.errors import BadInput
from ..runtime.options import Options, Recording

__all__ = ["checkpoint", "encoder", "reference", "reuse", "room"]

QUESTION = "Where is the table?"


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Folder of the checkpoint.")
@click.option(
    "--size",
    type=click.Choice(["small", "tiny", "full"]),
    default="tiny",
    show_default=True,
    help="small is trained; tiny and full, the released model's size, have random weights.",
)
@click.option("--layers", type=int, help="Layers of the language model; by default the size's.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random weights.")
@logging_options
@reports_errors
def checkpoint(out: Path, size: str, layers: int | None, seed: int, quiet: bool) -> None:
    """Write a checkpoint: a small one that answers, or random weights, whose arithmetic is the model's."""
    from .checkpoints import make_checkpoint

    make_checkpoint(out, size, layers=layers, seed=seed, quiet=quiet)


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Gets scene/ and video/.")
@click.option("--voxels", type=int, default=30_000, show_default=True, help="Voxels of the scene at 6 cm.")
@click.option("--frames", type=int, default=32, show_default=True, help="Frames of the clip.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of room and frames.")
@logging_options
@reports_errors
def room(out: Path, voxels: int, frames: int, seed: int, quiet: bool) -> None:
    """Write a furnished room of any size and a clip through it, to run and verify a bundle at scale."""
    from .world.rooms import write_room

    write_room(out, voxels, frames, seed=seed)


@click.command()
@click.argument("stage", type=click.Choice(["points", "maps", "vision", "aligner"]))
@click.option("--voxels", type=int, help="Voxels of the room; by default 39000, 60000 for maps, 30000 for the aligner.")
@click.option("--frames", type=int, help="Frames; by default 32 for the aligner, 1 for vision.")
@click.option("--runs", type=int, default=7, show_default=True, help="Pairs of runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def encoder(stage: str, voxels: int | None, frames: int | None, runs: int, as_json: bool, quiet: bool) -> None:
    """Measure an encoder at the released model's size against its plain form, with random weights."""
    from .encoders import compare

    comparison = compare(stage, voxels=voxels, frames=frames, runs=runs)
    click.echo(comparison.to_json() if as_json else str(comparison))


@click.command()
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder.")
@checkpoint_options
@click.option("-s", "--scene", type=FOLDER, help="Scene; with the clip left out, a small one that is built in.")
@click.option("-V", "--video", type=FOLDER, help="Clip.")
@view_options
@click.option("-q", "--question", "text", default=QUESTION, show_default=True, help="What to ask.")
@click.option("-f", "--frames", type=int, help="Most frames; by default the bundle's number, halved until theirs fits.")
@click.option("-n", "--max-new-tokens", "tokens", type=int, default=16, show_default=True, help="Tokens to decode.")
@click.option("--runs", type=int, default=5, show_default=True, help="Pairs of runs of each stage.")
@click.option("--precision", help="Our encoders; by default fp32 where the bundle holds it.")
@click.option("--quant", help="Our language model; by default the smallest that the bundle holds.")
@click.option("--threads", type=int, help="CPU threads of both sides; by default all cores.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
@gathered(Recording, "recording")
def reference(
    bundle: Path,
    checkpoint: Path,
    base: Path | None,
    point_encoder: Path | None,
    recording: Recording,
    text: str,
    frames: int | None,
    tokens: int,
    runs: int,
    precision: str | None,
    quant: str | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the PyTorch model the way its authors run it beside a bundle, stage by stage, alternated.

    In PyTorch tower and projector run twice, the aligner holds all attention scores, and the language model gives the
    logits of all positions, all in float32 on the CPU. What it will take is predicted, and what does not fit is said.
    """
    from ..export.checkpoint.checkpoint import Checkpoint
    from .reference import Question, compare_with_authors, table, to_json

    options = Options(precision=precision, quant=quant, threads=threads, device="cpu")
    question = Question(text, frames, tokens, runs)
    stored = Checkpoint(checkpoint, base, point_encoder)
    rows, ours = compare_with_authors(bundle, stored, recording, question, options)
    click.echo(to_json(rows, ours) if as_json else table(rows, ours))


@click.command()
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder.")
@click.option("-s", "--scene", type=FOLDER, help="Scene folder or point cloud.")
@click.option("-V", "--video", type=FOLDER, help="Folder of frames or video file.")
@view_options
@click.option("--quant", help="Language model; by default the smallest that the bundle holds.")
@click.option("--threads", type=int, help="CPU threads; by default all cores.")
@click.option("-n", "--max-new-tokens", type=int, default=16, show_default=True, help="Length of the answers.")
@click.option("--runs", type=int, default=7, show_default=True, help="Runs, in which all measurements take turns.")
@click.option("-f", "--frames", type=int, help="Frames to sample; by default the bundle's number.")
@click.option("--rea", "file", type=FOLDER, help="REA JSON whose further questions price --reuse-video approximate.")
@click.option("--root", type=FOLDER, help="Folder that the paths in it are relative to.")
@click.option("--soak", "questions", type=int, default=0, help="Ask so many questions more in one process.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
@gathered(Recording, "recording")
@gathered(Options, "options")
def reuse(
    bundle: Path,
    recording: Recording,
    options: Options,
    max_new_tokens: int,
    runs: int,
    frames: int | None,
    questions: int,
    file: Path | None,
    root: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure what a question costs of which only a part is new: a frame, a follow-up, a live view."""
    import json

    from ..runtime.request import read
    from .rea.dataset import ReaDataset
    from .reuse import approximate, measure, quiet_clips, report, soak, table

    if (file is None) != (root is None):
        raise BadInput("--rea and --root go together")
    dataset = ReaDataset(file, root) if file and root else None
    with quiet_clips():
        # with a data set alone, there is nothing else to measure
        runs = 0 if dataset is not None and recording.scene is None else runs
        lengths: dict[str, Any] = {"new_tokens": max_new_tokens, "runs": runs, "frames": frames}
        rows = measure(bundle, *read(recording), options, **lengths) if runs else []
        soaked = soak(bundle, options, questions) if questions else None
        traded = approximate(bundle, dataset, options, new_tokens=max_new_tokens) if dataset is not None else []
    found = (rows, soaked, traded)
    click.echo(json.dumps(report(*found)) if as_json else table(*found))
