"""Options of stllm-bench: checkpoints and rooms of any size, and measurements on them."""

from pathlib import Path

import click

from ..runtime.console import FOLDER, logging_options, peak_memory, reports_errors
from ..runtime.errors import BadInput, require_at_least

__all__ = ["checkpoint", "encoder", "room"]


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
    from .checkpoints import FULL, TINY, copy_trained, write_checkpoint
    from .folders import make_new_folder

    if size == "small" and (layers is not None or seed):
        raise BadInput("--size small: is trained as it is; --layers and --seed are for random weights")
    require_at_least({"--layers": (layers, 1), "--seed": (seed, 0)})
    make_new_folder(out)
    if size == "small":
        copy_trained(out)
        return
    with peak_memory(quiet):
        write_checkpoint(out, {"tiny": TINY, "full": FULL}[size], seed=seed, layers=layers)


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Gets scene/ and video/.")
@click.option("--voxels", type=int, default=30_000, show_default=True, help="Voxels of the scene at 6 cm.")
@click.option("--frames", type=int, default=32, show_default=True, help="Frames of the clip.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of room and frames.")
@logging_options
@reports_errors
def room(out: Path, voxels: int, frames: int, seed: int, quiet: bool) -> None:
    """Write a furnished room of any size and a clip through it, to run and verify a bundle at scale."""
    from .folders import make_new_folder
    from .world.rooms import write_room

    require_at_least({"--voxels": (voxels, 1), "--frames": (frames, 1), "--seed": (seed, 0)})
    make_new_folder(out)
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
    from . import encoders

    require_at_least({"--voxels": (voxels, 1), "--frames": (frames, 1), "--runs": (runs, 1)})
    comparison = {
        "points": lambda: encoders.compare_points(voxels or 39_000, runs),
        "maps": lambda: encoders.compare_maps(voxels or 60_000, runs),
        "vision": lambda: encoders.compare_vision(frames or 1, runs),
        "aligner": lambda: encoders.compare_aligner(frames or 32, voxels or 30_000, runs),
    }[stage]()
    click.echo(comparison.to_json() if as_json else str(comparison))
