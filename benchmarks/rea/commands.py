"""Options of stllm-bench rea: the REA data set."""

import json
import sys
from pathlib import Path

import click
from click.core import ParameterSource

from ...runtime.bundle.manifest import Defaults
from ...runtime.console import (
    FOLDER,
    Progress,
    gathered,
    logging_options,
    options,
    peak_memory,
    reports_errors,
    reuse_options,
    session_options,
)
from ...runtime.errors import BadInput
from ...runtime.options import Options

__all__ = ["check", "compare", "imatrix", "judge", "merge", "run", "score", "synth"]

# of `imatrix`, by parameter: what is for a data set alone, and for text alone
OF_CLIPS = {
    "spec": "--subset", "fps": "--fps", "seed": "--seed", "voxel_size": "--voxel-size", "frames": "--frames",
    "time_instruction": "--time-instruction",
}  # fmt: skip
OF_TEXT = {"chunk": "--chunk"}

rea_options = options(
    click.option("--rea", "file", type=FOLDER, required=True, help="JSON file of the release."),
    click.option("--root", type=FOLDER, required=True, help="Folder that the paths in it are relative to."),
    click.option("--fps", type=float, help="Frames a second; by default as recorded, else EPIC-KITCHENS' 60 or 50."),
)


@click.command()
@click.option("--out", type=FOLDER, required=True, help="New folder of the data set.")
@click.option("--scenes", type=int, required=True, help="Rooms; each has a point cloud and a video.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of rooms, clips and questions.")
@click.option("--clips", type=int, default=2, show_default=True, help="Clips in a room, of 12 frames.")
@click.option(
    "--questions", type=int, default=3, show_default=True, help="A clip, on each of directions, distances and ways."
)
@click.option(
    "--val-share", type=float, default=0.1, show_default=True, help="Share of the rooms that is for validation."
)
@click.option("--processes", type=int, help="By default one a core.")
@logging_options
@reports_errors
def synth(
    out: Path,
    scenes: int,
    seed: int,
    clips: int,
    questions: int,
    val_share: float,
    processes: int | None,
    quiet: bool,
) -> None:
    """Write the small world: furnished rooms, clips of a person at work, questions and answers."""
    from ..world.synth import Recipe, write_synth

    recipe = Recipe(scenes, seed, clips, questions, val_share)
    click.echo(str(write_synth(out, recipe, processes=processes, quiet=quiet)))


@click.command()
@click.argument("predictions", type=FOLDER)
@click.option("--train", type=FOLDER, help="REA training JSON that the baselines learn from; else cross-validated.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the intervals and of the folds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def score(predictions: Path, train: Path | None, seed: int, as_json: bool, quiet: bool) -> None:
    """Score answers offline, by type of question.

    PREDICTIONS is results.jsonl of a run, or a JSON list of {query, gt, pred}.
    """
    from ..scoring.score import score_file

    report = score_file(predictions, train=train, seed=seed)
    click.echo(report.to_json() if as_json else str(report))


@click.command()
@click.argument("predictions", type=FOLDER)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="JSON lines to write.")
@click.option("--scale", type=click.Choice(["yes-no", "0-5"]), default="yes-no", show_default=True, help="Of verdicts.")
@click.option("--model", default="gpt-4o", show_default=True, help="The judge; gpt-4o is that of REA's authors.")
@click.option("--endpoint", help="OpenAI-compatible URL, such as http://localhost:8080/v1; else prompts are written.")
@click.option("--key-variable", default="OPENAI_API_KEY", show_default=True, help="Environment variable with the key.")
@click.option("--timeout", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds for one reply.")
@click.option("--tries", type=click.IntRange(1), default=6, show_default=True, help="For one reply.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def judge(
    predictions: Path,
    out: Path,
    scale: str,
    model: str,
    endpoint: str | None,
    key_variable: str,
    timeout: float,
    tries: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Let a language model judge answers, or write the prompts for it.

    PREDICTIONS is results.jsonl of a run, or a JSON list of {query, gt, pred}. Without --endpoint, --out gets requests
    for OpenAI's batch API; with it, verdicts, and the command can be run again to go on where it stopped.
    """
    from ..scoring.chat import Endpoint
    from ..scoring.judge import judge_file, write_prompts_file

    if endpoint is None:
        click.echo(f"{write_prompts_file(predictions, out, model, scale)} prompts in {out}", err=True)
        return
    chat = Endpoint.with_key_from(key_variable, endpoint, timeout=timeout, tries=tries)
    judgement = judge_file(predictions, out, chat, model=model, scale=scale)
    click.echo(judgement.to_json() if as_json else str(judgement))


@click.command()
@rea_options
@click.option("--pictures", type=FOLDER, help="Draw each clip's cloud, camera and frames into this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def check(file: Path, root: Path, fps: float | None, pictures: Path | None, as_json: bool, quiet: bool) -> None:
    """Count samples, frames and poses, and list the samples that cannot be used."""
    from .check import check_dataset
    from .dataset import ReaDataset

    check = check_dataset(ReaDataset(file, root, fps=fps), pictures=pictures, quiet=quiet)
    click.echo(json.dumps(check.to_json(), indent=1) if as_json else str(check))
    if not check.usable:
        sys.exit(1)


@click.command()
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder.")
@rea_options
@click.option("--out", type=FOLDER, required=True, help="Folder of results and predictions; what it holds is kept.")
@click.option(
    "--subset",
    "spec",
    default="all",
    show_default=True,
    help="all, first:N, end:N, random:N or N%; N may be a percentage as well.",
)
@click.option("--type", "types", multiple=True, help="Question type, before the subset is cut; may repeat.")
@click.option("--scene", "scenes", multiple=True, help="Scene id, before the subset is cut; may repeat.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random:N.")
@click.option("--shard", default="1/1", show_default=True, help="Part i of n of the subset, as i/n.")
@session_options
@reuse_options
@click.option("--resident/--no-resident", default=True, show_default=True, help="Keep the stages loaded.")
@click.option("--scheduler", metavar="ADDRESS", help="Let the workers of this Dask scheduler answer.")
@click.option("--swap", "swapped", type=click.Choice(["cloud", "clip"]), help="Show what belongs to the next room.")
@logging_options
@reports_errors
@gathered(Options, "options")
def run(
    bundle: Path,
    file: Path,
    root: Path,
    fps: float | None,
    out: Path,
    spec: str,
    types: tuple[str, ...],
    scenes: tuple[str, ...],
    seed: int,
    shard: str,
    options: Options,
    max_new_tokens: int,
    frames: int | None,
    scheduler: str | None,
    swapped: str | None,
    quiet: bool,
) -> None:
    """Answer a subset; started again, it goes on where it was."""
    from .answering import Request
    from .dataset import ReaDataset
    from .run import Task, answer_and_score
    from .subset import Shard, Subset

    request = Request(bundle, options, frames, max_new_tokens)
    task = Task(request, Subset(spec, types, scenes, seed), Shard.parse(shard), swapped, scheduler)
    if not answer_and_score(task, ReaDataset(file, root, fps=fps), out, quiet=quiet):
        sys.exit(1)


@click.command()
@click.option("--ckpt", "checkpoint", type=FOLDER, required=True, help="Checkpoint folder as the trainer saved it.")
@click.option("--base", type=FOLDER, help="Checkpoint below a LoRA adapter, if the adapter does not lead to it.")
@click.option("--rea", "file", type=FOLDER, help="JSON file of the release.")
@click.option("--root", type=FOLDER, help="Folder that the paths in it are relative to.")
@click.option("--fps", type=float, help="Frames a second; by default as recorded, else EPIC-KITCHENS' 60 or 50.")
@click.option("--subset", "spec", help="all, first:N, end:N, random:N or N%; by default random:64, or all if fewer.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random:N.")
@click.option("--text", type=FOLDER, help="UTF-8 text in place of a data set.")
@click.option("--chunk", type=int, help="Tokens of a piece of text; by default 512.")
@click.option("--weight", "weights", multiple=True, metavar="CLASS=NUMBER", help="Of text, prefix or video; else 1.")
@click.option("--output/--no-output", default=False, show_default=True, help="Whether output.weight gets a row.")
@click.option("--out", type=FOLDER, required=True, help="GGUF file; of each class, another lies beside it.")
@click.option("--voxel-size", type=float, default=0.06, show_default=True, help="Edge of a voxel, metres.")
@click.option("--frames", type=int, default=32, show_default=True, help="Frames that a clip is sampled to.")
@click.option(
    "--time-instruction/--no-time-instruction",
    default=True,
    show_default=True,
    help="Whether the model was trained with the clip's times in the prompt.",
)
@logging_options
@reports_errors
@gathered(Defaults, "defaults")
def imatrix(
    checkpoint: Path,
    base: Path | None,
    file: Path | None,
    root: Path | None,
    fps: float | None,
    spec: str | None,
    seed: int,
    text: Path | None,
    chunk: int | None,
    weights: tuple[str, ...],
    output: bool,
    out: Path,
    defaults: Defaults,
    quiet: bool,
) -> None:
    """Collect an importance matrix from whole prompts, or from text; started again, it goes on where it was."""
    from .dataset import ReaDataset
    from .prompts import CHUNK, Calibration, Samples, TextFile, make_matrix, opened, parse_weights
    from .subset import Subset

    if (text is None) == (file is None) or (file is None) != (root is None):
        raise BadInput("expected --rea FILE --root DIR, or --text FILE")
    given = click.get_current_context().get_parameter_source
    unused = OF_CLIPS if text else OF_TEXT
    if said := [option for name, option in unused.items() if given(name) is not ParameterSource.DEFAULT]:
        raise BadInput(f"{said[0]}: is for {'--rea' if text else '--text'}; leave it out")
    source: Samples | TextFile
    if text is not None:
        source = TextFile(text, CHUNK if chunk is None else chunk)
    else:
        assert file is not None
        assert root is not None
        source = Samples(ReaDataset(file, root, fps=fps), Subset(spec, seed=seed) if spec else None, defaults)
    with peak_memory(quiet):
        parsed = parse_weights(weights)
        calibration = Calibration(*opened(checkpoint, base), source, parsed, output, Progress(quiet))
        store = make_matrix(calibration, out)
    click.echo(f"{out}: {len(store)} prompts, {store.positions} positions")


@click.command()
@click.argument("results", type=FOLDER, nargs=-1, required=True)
@click.option("--out", type=FOLDER, required=True, help="Folder of results.jsonl and predictions.json.")
@logging_options
@reports_errors
def merge(results: tuple[Path, ...], out: Path, quiet: bool) -> None:
    """Put the results of all shards of a run together."""
    from .merge import merge_results

    merged = merge_results(results, out)
    click.echo(f"{len(merged.records)} answers in {out}, {len(merged.missing)} missing")
    for name in merged.missing:
        click.echo(f"missing: {name}", err=True)


@click.command()
@click.argument("ours", type=FOLDER)
@click.argument("reference", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def compare(ours: Path, reference: Path, as_json: bool, quiet: bool) -> None:
    """Compare two runs on the same questions: how many answers are identical, and how many points apart they are."""
    from ..scoring.compare import compare

    comparison = compare(ours, reference)
    click.echo(comparison.to_json() if as_json else str(comparison))
