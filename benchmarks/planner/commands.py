"""Options of stllm-bench plan and sweep: what to expect of a device, and how it grows."""

import json
from pathlib import Path

import click

from ...runtime.console import FOLDER, logging_options, options, reports_errors

__all__ = ["plan"]

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
