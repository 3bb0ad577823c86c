"""Options of stllm-run: a question about a scene and a clip, and a check of both."""

import json
import sys
from pathlib import Path

import click

from .console import (
    FOLDER,
    bag_options,
    gathered,
    logging_options,
    options,
    reports_errors,
    session_options,
    view_options,
)
from .options import Options, Recording, Request

__all__ = ["bag_info", "check", "run"]

input_options = options(
    click.option("-s", "--scene", type=FOLDER, help="Scene folder, or point cloud: ply, glb, pcd, las, npy, text."),
    click.option("-V", "--video", type=FOLDER, help="Folder of image files, or a video file."),
    view_options,
    bag_options,
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stllm-edge")
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder.")
@input_options
@click.option("-q", "--question", required=True, help="What to ask.")
@session_options
@click.option("-t", "--temperature", type=float, default=0.0, show_default=True, help="0 takes the best token.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws above temperature 0.")
@click.option("--time-instruction/--no-time-instruction", default=None, help="By default as the bundle records it.")
@click.option("--bare-prompt", is_flag=True, help="Leave out the assistant's header; the model writes it itself.")
@click.option("--resident/--no-resident", help="Keep the stages loaded in this process: takes more memory.")
@click.option("--dump", type=FOLDER, help="Write the arrays of all stages to a .safetensors file.")
@click.option("--json", "as_json", is_flag=True, help="Print answer, token counts and milliseconds as JSON.")
@logging_options
@reports_errors
@gathered(Recording, "recording")
@gathered(Request, "request")
@gathered(Options, "options")
def run(
    bundle: Path,
    recording: Recording,
    request: Request,
    options: Options,
    as_json: bool,
    dump: Path | None,
    quiet: bool,
) -> None:
    """Answer a question about a scene and a clip."""
    from .request import answer_request

    answer_request(bundle, recording, request, options, as_json=as_json, dump=dump)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@input_options
@click.option("-b", "--bundle", type=FOLDER, help="Bundle whose number of frames and voxels count.")
@click.option("-f", "--frames", type=int, help="Frames to look at; by default the bundle's number, or all up to 32.")
@click.option("--picture", type=FOLDER, help="Draw cloud, camera and frames to a .png file.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@logging_options
@reports_errors
@gathered(Recording, "recording")
def check(
    recording: Recording,
    bundle: Path | None,
    frames: int | None,
    picture: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say what is understood of a scene and a clip, and hold them against each other; no model is needed.

    Leaves with status 1 where a question would be refused.
    """
    from .request import check_recording

    fit = check_recording(recording, bundle, frames, picture)
    click.echo(json.dumps(fit.to_json(), indent=1) if as_json else str(fit))
    if any(finding.certain for finding in fit.findings):
        sys.exit(1)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bag", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
@logging_options
@reports_errors
def bag_info(bag: Path, as_json: bool, quiet: bool) -> None:
    """List what a recording holds: topics, times, what is missing for a question, and the command that asks it.

    Leaves with status 1 where something is missing.
    """
    from .inputs.recordings.info import survey

    found = survey(bag)
    click.echo(json.dumps(found.to_json(), indent=1) if as_json else str(found))
    if found.missing:
        sys.exit(1)
