"""Options of stllm-run: a question about a scene and a clip, and a check of both."""

import json
import re
import sys
from pathlib import Path

import click
from click.core import ParameterSource

from .console import (
    FOLDER,
    bag_options,
    gathered,
    logging_options,
    options,
    reports_errors,
    reuse_options,
    session_options,
    view_options,
)
from .errors import BadInput
from .options import Options, Recording, Request

__all__ = ["bag_info", "check", "run"]

input_options = options(
    click.option("-s", "--scene", type=FOLDER, help="Scene folder, or point cloud: ply, glb, pcd, las, npy, text."),
    click.option("-V", "--video", type=FOLDER, help="Folder of image files, or a video file."),
    view_options,
    bag_options,
)


class Size(click.ParamType):
    """Bytes, as 500MB or 2GB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)i?B?\s*", str(value), re.IGNORECASE)
        if found is None:
            self.fail(f"{value!r} is no size; write 500MB or 2GB", param, ctx)
        return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


class Texts(click.ParamType):
    """Texts with commas between them."""

    name = "texts"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(str(value).split(","))


class Content(click.ParamType):
    """The text of a file."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return Path(str(value)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{value}: cannot be read ({error})", param, ctx)


SIZE = Size()
sampling_options = options(
    click.option("-t", "--temperature", type=float, default=0.0, show_default=True, help="0 takes the best token."),
    click.option("--top-k", type=int, default=0, help="Draw among so many of the best tokens; 0 for all."),
    click.option("--top-p", type=float, default=1.0, help="Draw among the best that have this probability together."),
    click.option("--min-p", type=float, default=0.0, help="Leave out tokens below this share of the best one's."),
    click.option("--repetition-penalty", type=float, default=1.0, help="Of the last 64 tokens; 1 for none."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the draws above temperature 0."),
    click.option("--stop", multiple=True, help="Text that ends the answer; may be given several times."),
    click.option("--choices", type=Texts(), default=(), help="The only answers that are possible, as left,right."),
    click.option("--json-schema", type=Content(), metavar="FILE", help="JSON Schema that the answer keeps to."),
    click.option("--max-time", type=float, help="Seconds after which the answer ends with what there is."),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stllm-edge")
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder.")
@input_options
@click.option("-q", "--question", "questions", multiple=True, help="What to ask; may be given several times.")
@click.option("--questions", "file", type=FOLDER, help="File of questions, one a line; - for standard input.")
@click.option("--preset", type=FOLDER, help="File of stllm-bench tune: options for this bundle; those given here win.")
@session_options
@sampling_options
@click.option("--time-instruction/--no-time-instruction", default=None, help="By default as the bundle records it.")
@click.option("--bare-prompt", is_flag=True, help="Leave out the assistant's header; the model writes it itself.")
@click.option("--cache", type=FOLDER, help="Folder where features of scenes and frames are kept for later.")
@click.option("--cache-size", type=SIZE, default="2GB", show_default=True, help="Bytes that the folder takes at most.")
@reuse_options
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
    questions: tuple[str, ...],
    file: Path | None,
    preset: Path | None,
    as_json: bool,
    dump: Path | None,
    quiet: bool,
) -> None:
    """Answer questions about a scene and a clip: those that are given, or else those that are typed."""
    from .request import answer_request, read_questions

    held = read_questions(questions, file)
    if preset is not None:
        from .bundle.manifest import Bundle
        from .preset import read_preset

        chosen, opened = read_preset(preset), Bundle(bundle)
        chosen.require_for(opened, preset)
        options, request = chosen.applied(opened, options, request, given(), several=len(held) > 1)
    if held:
        answer_request(bundle, recording, request, options, held, as_json=as_json, dump=dump, quiet=quiet)
        return
    if not as_json and not sys.stdin.isatty():
        raise click.UsageError("Missing option '-q' / '--question', or --questions; without a terminal, --json reads.")
    if options.reuse_video is not None:
        raise BadInput(
            f"--reuse-video {options.reuse_video}: questions that are typed follow each other, and read their own "
            "tokens alone; give several with -q or --questions"
        )
    if dump is not None:
        raise BadInput(f"--dump {dump}: holds the stages of one question; give it with -q")
    from .chat import chat

    chat(bundle, recording, request, options, as_json=as_json, quiet=quiet)


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


def given() -> set[str]:
    """Names of the parameters that the user typed."""
    context = click.get_current_context()
    return {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}


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
