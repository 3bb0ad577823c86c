"""The commands: options and dispatch only; everything heavy is imported by the command that needs it."""

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from .runtime.errors import BadInput, StllmError

__all__ = ["bench", "export", "run"]

Command = TypeVar("Command", bound=Callable[..., Any])
USAGE_ERROR = 2
FOLDER = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stllm-edge")
def export() -> None:
    """Turn a trained ST-LLM checkpoint into a bundle that stllm-run answers from."""


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order given."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def reports_errors(command: Command) -> Command:
    """Print an error that the user can mend as one line and leave with status 2."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, verbose: bool = False, quiet: bool = False, **values: Any) -> Any:
        level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger = logging.getLogger("stllm_edge")
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(level)
        try:
            return command(*arguments, quiet=quiet, **values)
        except StllmError as error:
            click.echo(f"{click.get_current_context().command_path}: {' '.join(str(error).split())}", err=True)
            sys.exit(USAGE_ERROR)

    return wrapped  # type: ignore[return-value]


logging_options = options(
    click.option("-v", "--verbose", is_flag=True, help="Log every decision, and what libllama says."),
    click.option("--quiet", is_flag=True, help="No progress and no notices on stderr."),
)
checkpoint_options = options(
    click.option("--ckpt", "checkpoint", type=FOLDER, required=True, help="Checkpoint folder as the trainer saved it."),
    click.option("--base", type=FOLDER, help="Checkpoint below a LoRA adapter, if the adapter does not lead to it."),
    click.option("--point-encoder", type=FOLDER, help="OpenScene weights (.pth.tar) instead of the checkpoint's own."),
)
output_options = options(
    click.option("--out", type=FOLDER, required=True, help="Bundle folder; it may hold other parts already."),
    click.option("--force", is_flag=True, help="Replace parts that the bundle already holds."),
    click.option("--voxel-size", type=float, default=0.06, show_default=True, help="Edge of a voxel, metres."),
    click.option("--frames", type=int, default=32, show_default=True, help="Frames that a clip is sampled to."),
    click.option(
        "--time-instruction/--no-time-instruction",
        default=True,
        show_default=True,
        help="Whether the model was trained with the clip's times in the prompt.",
    ),
)
precision_option = click.option(
    "--precision", "precisions", multiple=True, default=["fp32"], show_default=True, help="fp32 or fp16; may repeat."
)
quant_option = click.option(
    "--quant", "quants", multiple=True, default=["Q4_K_M"], show_default=True, help="GGUF type; may repeat."
)


@export.command()
@checkpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def inspect(checkpoint: Path, base: Path | None, point_encoder: Path | None, as_json: bool, quiet: bool) -> None:
    """Print the parts of a checkpoint: sizes, types, what is unused, what is missing."""
    from .export.inspection import inspect_checkpoint, render

    report = inspect_checkpoint(checkpoint, base, point_encoder)
    click.echo(json.dumps(report, indent=1) if as_json else render(report))
    if report["missing"] or report["unknown"] or report["misfits"]:
        sys.exit(1)


@export.command()
@checkpoint_options
@output_options
@precision_option
@logging_options
@reports_errors
def onnx(**values: Any) -> None:
    """Write the vision, points and aligner graphs."""
    from .export.pipeline import Export

    with peak_memory(values["quiet"]):
        Export.from_options(values).run(precisions=values["precisions"])


@export.command()
@checkpoint_options
@output_options
@quant_option
@logging_options
@reports_errors
def gguf(**values: Any) -> None:
    """Write the language model."""
    from .export.pipeline import Export

    with peak_memory(values["quiet"]):
        Export.from_options(values).run(quants=values["quants"])


@export.command(name="all")
@checkpoint_options
@output_options
@precision_option
@quant_option
@click.option("--scene", type=FOLDER, help="Scene to verify on; by default a small one that is built in.")
@click.option("--video", type=FOLDER, help="Clip to verify on.")
@click.option(
    "--verify/--no-verify", "verified", default=True, show_default=True, help="Compare with PyTorch at the end."
)
@logging_options
@reports_errors
def everything(scene: Path | None, video: Path | None, verified: bool, **values: Any) -> None:
    """Write encoders and language model, then verify them."""
    from .export.pipeline import Export

    with peak_memory(values["quiet"]):
        exported = Export.from_options(values)
        exported.run(precisions=values["precisions"], quants=values["quants"])
        if verified:
            print_rows(exported.verify(scene, video, values["precisions"], values["quants"]))


@export.command()
@click.option("--bundle", "out", type=FOLDER, required=True, help="Bundle folder.")
@checkpoint_options
@click.option("--scene", type=FOLDER, help="Scene to verify on; by default a small one that is built in.")
@click.option("--video", type=FOLDER, help="Clip to verify on.")
@click.option("--precision", "precisions", multiple=True, help="Encoders to compare; by default all.")
@click.option("--quant", "quants", multiple=True, help="Language models to compare; by default all.")
@click.option(
    "--positions",
    type=int,
    default=256,
    show_default=True,
    help="Longest prompt for the language model; 8192 takes whole clips, and minutes.",
)
@logging_options
@reports_errors
def verify(scene: Path | None, video: Path | None, positions: int, **values: Any) -> None:
    """Run bundle and PyTorch model side by side, one line a stage."""
    from .export.pipeline import Export

    with peak_memory(values["quiet"]):
        exported = Export.from_options(values)
        print_rows(exported.verify(scene, video, values["precisions"], values["quants"], positions))


@export.command()
@click.option("--bundle", type=FOLDER, required=True, help="Bundle folder.")
@click.option("--target", help="Kind of device, as orin-nano or rtx-ada; by default this machine's GPU.")
@click.option("--precision", "precisions", multiple=True, help="Encoders to build; by default all.")
@click.option("--profile", multiple=True, help="NAME=MIN:OPT:MAX of batch, frames, voxels or text; voxels may repeat.")
@click.option("--profile-from", "measured", type=FOLDER, help="REA file; its scenes say how many voxels there are.")
@click.option("--check", is_flag=True, help="Only compile, ahead of time and without a GPU, and report.")
@click.option("--force", is_flag=True, help="Replace engines that the bundle already holds.")
@click.option("--json", "as_json", is_flag=True, help="Print a check as one JSON object.")
@logging_options
@reports_errors
def tensorrt(bundle: Path, check: bool, force: bool, as_json: bool, quiet: bool, **values: Any) -> None:
    """Build TensorRT engines for a device, or check that they can be built."""
    from .export.progress import Progress
    from .export.tensorrt.engines import Engines

    with peak_memory(quiet):
        engines = Engines(bundle, **values, progress=Progress(quiet))
        if not check:
            engines.build(force=force)
            return
        from .export.tensorrt.check import check as examined

        if not print_findings(examined(engines), as_json):
            sys.exit(1)


def print_findings(findings: Iterator[Any], as_json: bool) -> bool:
    """Print what a check finds, line by line or as JSON; whether all passed."""
    if as_json:
        found = list(findings)
        click.echo(json.dumps([asdict(finding) for finding in found], indent=1))
        return all(finding.passed for finding in found)
    passed = True
    for finding in findings:
        click.echo(str(finding))
        passed = passed and finding.passed
    return passed


def print_rows(rows: Iterator[Any]) -> None:
    """Print comparisons as they come; leave with status 1 if one failed."""
    failed = []
    for row in rows:
        click.echo(str(row))
        if row.passed is False:
            failed.append(f"{row.part} {row.stage}")
    if failed:
        click.echo(f"differs from the PyTorch model: {', '.join(failed)}", err=True)
        sys.exit(1)


@contextmanager
def peak_memory(quiet: bool) -> Iterator[None]:
    """Print the process's peak resident memory once the work is done."""
    import resource

    yield
    if not quiet:
        click.echo(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB", err=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stllm-edge")
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder.")
@click.option("-s", "--scene", type=FOLDER, required=True, help="Scene folder, or a .npy, .ply or .glb point cloud.")
@click.option("--poses", type=FOLDER, help="Folder of 4x4 pose files; by default in the scene folder.")
@click.option("--intrinsics", type=FOLDER, help="3x3 intrinsics file; by default K.txt in the scene folder.")
@click.option(
    "--pose-convention",
    default="c2w",
    show_default=True,
    help="How poses are meant: c2w, w2c (OpenCV axes), c2w-opengl, w2c-opengl.",
)
@click.option("-V", "--video", type=FOLDER, required=True, help="Folder of jpg or png frames, or a video file.")
@click.option("--fps", type=float, help="Frames a second; by default from clip.json or the video file.")
@click.option("--video-seconds", type=float, help="Length of the clip; by default its frames over fps.")
@click.option("--first-frame", type=int, default=0, show_default=True, help="Number of the first frame; 1 for EPIC.")
@click.option("-q", "--question", required=True, help="What to ask.")
@click.option("--precision", help="Encoders: fp32 or fp16; by default fp32 where the bundle holds it.")
@click.option("--quant", help="Language model; by default the smallest that the bundle holds.")
@click.option("-n", "--max-new-tokens", type=int, default=256, show_default=True, help="Longest answer.")
@click.option("-t", "--temperature", type=float, default=0.0, show_default=True, help="0 takes the best token.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws above temperature 0.")
@click.option("-f", "--frames", type=int, help="Frames to sample; by default the bundle's number.")
@click.option("--time-instruction/--no-time-instruction", default=None, help="By default as the bundle records it.")
@click.option("--bare-prompt", is_flag=True, help="Leave out the assistant's header; the model writes it itself.")
@click.option("--threads", type=int, help="CPU threads; by default all cores.")
@click.option("--kv", default="f16", show_default=True, help="Type of keys and values: f16, q8_0 or f32.")
@click.option("--flash-attention/--no-flash-attention", default=None, help="By default libllama decides.")
@click.option("--device", default="auto", show_default=True, help="Of the encoders: auto, cpu, cuda or tensorrt.")
@click.option("--strict", is_flag=True, help="Fail rather than run elsewhere than on that device.")
@click.option("--gpu-layers", type=int, help="Layers of the language model on the GPU; by default all, none on cpu.")
@click.option("--resident/--no-resident", help="Keep the stages loaded in this process: takes more memory.")
@click.option("--check-digests", is_flag=True, help="Hash the bundle's files even if they look unchanged.")
@click.option("--dump", type=FOLDER, help="Write the arrays of all stages to a .safetensors file.")
@click.option("--json", "as_json", is_flag=True, help="Print answer, token counts and milliseconds as JSON.")
@logging_options
@reports_errors
def run(quiet: bool, **values: Any) -> None:
    """Answer a question about a scene and a clip."""
    from .runtime.command import answer_question

    answer_question(values)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stllm-edge")
def bench() -> None:
    """Generate checkpoints of any size and measure on them."""


@bench.command()
@click.option("--out", type=FOLDER, required=True, help="Folder of the checkpoint.")
@click.option(
    "--size",
    type=click.Choice(["tiny", "full"]),
    default="tiny",
    show_default=True,
    help="full is the released model's.",
)
@click.option("--layers", type=int, help="Layers of the language model; by default the size's.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the weights.")
@logging_options
@reports_errors
def checkpoint(out: Path, size: str, layers: int | None, seed: int, quiet: bool) -> None:
    """Write a checkpoint with random weights: its answers mean nothing, its arithmetic is the model's."""
    from .benchmarks.checkpoints import FULL, TINY, write_checkpoint

    with peak_memory(quiet):
        write_checkpoint(out, {"tiny": TINY, "full": FULL}[size], seed=seed, layers=layers)


@bench.command()
@click.option("--out", type=FOLDER, required=True, help="Gets scene/ and video/.")
@click.option("--voxels", type=int, default=30_000, show_default=True, help="Voxels of the scene at 6 cm.")
@click.option("--frames", type=int, default=32, show_default=True, help="Frames of the clip.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of room and frames.")
@logging_options
@reports_errors
def room(out: Path, voxels: int, frames: int, seed: int, quiet: bool) -> None:
    """Write a furnished room of any size and a clip through it, to run and verify a bundle at scale."""
    from .benchmarks.rooms import write_room

    write_room(out, voxels, frames, seed=seed)


@bench.command()
@click.argument("stage", type=click.Choice(["points", "maps", "vision", "aligner"]))
@click.option("--voxels", type=int, help="Voxels of the room; by default 39000, 60000 for maps, 30000 for the aligner.")
@click.option("--frames", type=int, help="Frames; by default 32 for the aligner, 1 for vision.")
@click.option("--runs", type=int, default=7, show_default=True, help="Pairs of runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def encoder(stage: str, voxels: int | None, frames: int | None, runs: int, as_json: bool, quiet: bool) -> None:
    """Measure an encoder at the released model's size against its plain form, with random weights."""
    from .benchmarks import encoders

    comparison = {
        "points": lambda: encoders.compare_points(voxels or 39_000, runs),
        "maps": lambda: encoders.compare_maps(voxels or 60_000, runs),
        "vision": lambda: encoders.compare_vision(frames or 1, runs),
        "aligner": lambda: encoders.compare_aligner(frames or 32, voxels or 30_000, runs),
    }[stage]()
    click.echo(comparison.to_json() if as_json else str(comparison))


@bench.group()
def rea() -> None:
    """Generate, check, answer and score subsets of the REA data set."""


@rea.command()
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
def synth(**values: Any) -> None:
    """Write the small world: furnished rooms, clips of a person at work, questions and answers."""
    from .benchmarks.rea.synth import write_synth

    click.echo(str(write_synth(**values)))


@rea.command(name="score")
@click.argument("predictions", type=FOLDER)
@click.option("--train", type=FOLDER, help="REA training JSON that the baselines learn from; else cross-validated.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the intervals and of the folds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def score_answers(predictions: Path, train: Path | None, seed: int, as_json: bool, quiet: bool) -> None:
    """Score answers offline, by type of question.

    PREDICTIONS is results.jsonl of a run, or a JSON list of {query, gt, pred}.
    """
    from .benchmarks.rea.predictions import read_predictions, read_training
    from .benchmarks.rea.scoring import score

    records = read_predictions(predictions)
    report = score(records, train=None if train is None else read_training(train), seed=seed)
    click.echo(report.to_json() if as_json else str(report))


@rea.command(name="judge")
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
def judge_answers(
    predictions: Path, out: Path, scale: str, model: str, as_json: bool, quiet: bool, **chat: Any
) -> None:
    """Let a language model judge answers, or write the prompts for it.

    PREDICTIONS is results.jsonl of a run, or a JSON list of {query, gt, pred}. Without --endpoint, --out gets requests
    for OpenAI's batch API; with it, verdicts, and the command can be run again to go on where it stopped.
    """
    import os

    from .benchmarks.rea.chat import Endpoint
    from .benchmarks.rea.judge import judge, write_prompts
    from .benchmarks.rea.predictions import read_predictions

    records = read_predictions(predictions)
    if out.exists() and out.samefile(predictions):
        raise BadInput(f"--out {out}: is the file of answers; choose another")
    if chat["endpoint"] is None:
        write_prompts(records, out, model, scale)
        click.echo(f"{len(records)} prompts in {out}", err=True)
        return
    key = os.environ.get(chat["key_variable"], "").strip()
    endpoint = Endpoint(chat["endpoint"], key, timeout=chat["timeout"], tries=chat["tries"])
    judgement = judge(records, out, endpoint.complete, model=model, scale=scale)
    click.echo(judgement.to_json() if as_json else str(judgement))


rea_options = options(
    click.option("--rea", "file", type=FOLDER, required=True, help="JSON file of the release."),
    click.option("--root", type=FOLDER, required=True, help="Folder that the paths in it are relative to."),
    click.option("--fps", type=float, help="Frames a second; by default as recorded, else EPIC-KITCHENS' 60 or 50."),
)


@rea.command(name="check")
@rea_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def rea_check(file: Path, root: Path, fps: float | None, as_json: bool, quiet: bool) -> None:
    """Count samples, frames and poses, and list the samples that cannot be used."""
    from .benchmarks.rea.check import check_dataset
    from .benchmarks.rea.dataset import ReaDataset
    from .export.progress import Progress

    dataset = ReaDataset(file, root, fps=fps)
    with Progress(quiet).bar("check", len(dataset.samples)) as advance:
        check = check_dataset(dataset, advance)
    click.echo(json.dumps(check.to_json(), indent=1) if as_json else str(check))
    if not check.usable:
        sys.exit(1)


@rea.command(name="run")
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
@click.option("-n", "--max-new-tokens", type=int, default=256, show_default=True, help="Longest answer.")
@click.option("--precision", help="Encoders: fp32 or fp16; by default fp32 where the bundle holds it.")
@click.option("--quant", help="Language model; by default the smallest that the bundle holds.")
@click.option("-f", "--frames", type=int, help="Frames to sample; by default the bundle's number.")
@click.option("--threads", type=int, help="CPU threads; by default all cores.")
@click.option("--resident/--no-resident", default=True, show_default=True, help="Keep the stages loaded.")
@click.option("--scheduler", metavar="ADDRESS", help="Let the workers of this Dask scheduler answer.")
@click.option("--swap", "swapped", type=click.Choice(["cloud", "clip"]), help="Show what belongs to the next room.")
@logging_options
@reports_errors
def rea_run(**values: Any) -> None:
    """Answer a subset; started again, it goes on where it was."""
    from .benchmarks.rea.command import answer_subset

    if not answer_subset(values):
        sys.exit(1)


@rea.command(name="merge")
@click.argument("results", type=FOLDER, nargs=-1, required=True)
@click.option("--out", type=FOLDER, required=True, help="Folder of results.jsonl and predictions.json.")
@logging_options
@reports_errors
def rea_merge(results: tuple[Path, ...], out: Path, quiet: bool) -> None:
    """Put the results of all shards of a run together."""
    from .benchmarks.rea.merge import merge_results

    merged = merge_results(results, out)
    click.echo(f"{len(merged.records)} answers in {out}, {len(merged.missing)} missing")
    for name in merged.missing:
        click.echo(f"missing: {name}", err=True)


@rea.command(name="compare")
@click.argument("ours", type=FOLDER)
@click.argument("reference", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def compare_answers(ours: Path, reference: Path, as_json: bool, quiet: bool) -> None:
    """Compare two runs on the same questions: how many answers are identical, and how many points apart they are."""
    from .benchmarks.rea.compare import compare

    comparison = compare(ours, reference)
    click.echo(comparison.to_json() if as_json else str(comparison))
