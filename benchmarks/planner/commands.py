"""Options of stllm-bench plan and sweep: what to expect of a device, and how it grows."""

import json
from pathlib import Path

import click

from ...runtime.console import FOLDER, logging_options, options, reports_errors

__all__ = ["plan", "sweep"]

subject_options = options(
    click.option("--bundle", type=FOLDER, help="An exported bundle."),
    click.option("--ckpt", type=FOLDER, help="A checkpoint; its headers are read, nothing else."),
)


@click.command()
@subject_options
@click.option(
    "--device",
    "devices",
    multiple=True,
    help="Board and power mode, orin-nano-8gb@MAXN_SUPER; this for this machine, which is measured. Repeatable; by "
    "default all boards.",
)
@click.option("--frames", type=int, default=32, show_default=True, help="Frames of a question.")
@click.option("--voxels", type=int, default=30_000, show_default=True, help="Voxels of the scene.")
@click.option("--new-tokens", type=int, default=64, show_default=True, help="Tokens of the answer.")
@click.option("--also", default="0", show_default=True, help="Memory that other programs take, such as 1.5GB.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@logging_options
@reports_errors
def plan(
    bundle: Path | None,
    ckpt: Path | None,
    devices: tuple[str, ...],
    frames: int,
    voxels: int,
    new_tokens: int,
    also: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Predict memory and latency on a device, before there is one; say what fits and what would make it fit."""
    from . import show
    from .plan import make_plans
    from .work import Question

    subject, found = make_plans(bundle, ckpt, devices, Question(frames, voxels, new_tokens), also)
    if as_json:
        print(json.dumps([show.as_json(each, subject) for each in found], indent=1))
    else:
        print("\n\n".join(show.as_text(each, subject) for each in found))


@click.command()
@click.option("--bundle", type=FOLDER, required=True, help="An exported bundle.")
@click.option("--out", type=FOLDER, required=True, help="New file of JSON lines, one for each stage of each question.")
@click.option("--plot", type=FOLDER, help="SVG of milliseconds against what is varied.")
@click.option(
    "--vary",
    multiple=True,
    help="frames, voxels, context (words that the question is longer by) or questions (about one clip), with values as "
    "in frames=2,4,8. Repeatable; by default all four.",
)
@click.option("--quant", default="Q8_0", show_default=True, help="Of the language model.")
@click.option("--frames", type=int, default=4, show_default=True, help="Frames where they are not varied.")
@click.option("--voxels", type=int, default=6_000, show_default=True, help="Voxels where they are not varied.")
@click.option("--new-tokens", type=int, default=16, show_default=True, help="Tokens of an answer, at the most.")
@click.option("--repeat", type=int, default=3, show_default=True, help="Runs of a question; the fastest counts.")
@click.option("--json", "as_json", is_flag=True, help="Print the growths as one JSON object.")
@logging_options
@reports_errors
def sweep(
    bundle: Path,
    out: Path,
    plot: Path | None,
    vary: tuple[str, ...],
    quant: str,
    frames: int,
    voxels: int,
    new_tokens: int,
    repeat: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure latency and memory against frames, voxels, context and questions; fit how each stage grows."""
    from ...runtime.console import Progress
    from . import show
    from .asking import Asked
    from .sweep import AXES, exponents, parse_axis
    from .sweep import plot as draw_plot
    from .sweep import sweep as run_sweep

    axes = dict(map(parse_axis, vary or AXES))
    base = Asked(quant, frames, voxels, new_tokens=new_tokens)
    rows = run_sweep(bundle, base, axes, out, repeat, Progress(quiet))
    if plot is not None:
        draw_plot(rows, plot, f"{bundle.name}, {quant}")
    growths = exponents(rows)
    print(json.dumps(show.growths_json(growths)) if as_json else show.growths_text(growths))
