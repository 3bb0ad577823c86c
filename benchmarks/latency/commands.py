"""Options of stllm-bench latency."""

from pathlib import Path

import click

from ...runtime.console import (
    FOLDER,
    gathered,
    logging_options,
    options,
    reports_errors,
    reuse_options,
    session_options,
    view_options,
)
from ...runtime.options import Options, Recording
from .schedule import Schedule

__all__ = ["latency"]

NEW_TOKENS = 32

workload_options = options(
    click.option("--rea", "file", type=FOLDER, help="JSON file of the REA release."),
    click.option("--root", type=FOLDER, help="Folder that the paths in it are relative to."),
    click.option("--subset", "spec", default="first:1", show_default=True, help="As in stllm-bench rea run."),
    click.option("--type", "types", multiple=True, help="Question type, before the subset is cut; may repeat."),
    click.option("-s", "--scene", type=FOLDER, help="Scene folder or point cloud, as in stllm-run."),
    click.option("-V", "--video", type=FOLDER, help="Folder of image files, or a video file."),
    click.option("-q", "--question", "questions", multiple=True, help="With --scene and --video; may repeat."),
)


schedule_options = options(
    click.option("--cold", type=int, default=3, show_default=True, help="Fresh processes, for the first question."),
    click.option("--warm-up", "most_warm_ups", type=int, default=10, show_default=True, help="At most, until stable."),
    click.option("-r", "--repetitions", type=int, default=5, show_default=True, help="Of each question, at least."),
    click.option("--min-seconds", type=float, default=0.0, show_default=True, help="Of answers, at least."),
    click.option("--delay", type=float, default=0.0, show_default=True, help="Seconds between two questions."),
    click.option("--cool-to", type=float, help="Celsius that the hottest zone has to come down to before a question."),
)


@click.command(context_settings={"default_map": {"max_new_tokens": NEW_TOKENS}})
@click.option("-b", "--bundle", type=FOLDER, required=True, help="Bundle folder.")
@click.option("--against", type=FOLDER, help="Another bundle, measured in turns with the first.")
@workload_options
@view_options
@schedule_options
@session_options
@reuse_options
@click.option("--resident/--no-resident", default=True, show_default=True, help="Keep the stages loaded.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random:N.")
@click.option("--allow-unverified", is_flag=True, help="Measure a bundle without a passing parity record; says so.")
@click.option("--out", type=FOLDER, default="latency", show_default=True, help="Folder of results.jsonl.")
@logging_options
@reports_errors
@gathered(Recording, "recording")
@gathered(Options, "options")
@gathered(Schedule, "schedule")
def latency(
    bundle: Path,
    against: Path | None,
    file: Path | None,
    root: Path | None,
    spec: str,
    types: tuple[str, ...],
    questions: tuple[str, ...],
    recording: Recording,
    options: Options,
    schedule: Schedule,
    frames: int | None,
    max_new_tokens: int,
    seed: int,
    allow_unverified: bool,
    out: Path,
    quiet: bool,
) -> None:
    """Measure where the time of questions goes on this device: cold, warm, and asked again about what was seen.

    Answers have exactly --max-new-tokens tokens. Rows go to results.jsonl as they come, and the same command goes on
    where it was. Prints Markdown tables; the last line is one JSON object.
    """
    from ...runtime.errors import BadInput
    from ..rea.dataset import ReaDataset
    from ..rea.subset import Subset
    from .measuring import measure
    from .workload import of_recording, of_subset

    given = (file is not None or root is not None, recording.scene is not None or recording.video is not None)
    if given[0]:
        if file is None or root is None or given[1] or questions:
            raise BadInput("--rea goes with --root, and without --scene, --video and --question; give one or the other")
        dataset, subset = ReaDataset(file, root, fps=recording.fps), Subset(spec, types, (), seed)
        workload = of_subset(dataset, subset, frames=frames, new_tokens=max_new_tokens)
    else:
        workload = of_recording(recording, questions, frames=frames, new_tokens=max_new_tokens)
    bundles = [bundle] if against is None else [bundle, against]
    measure(bundles, options, workload, schedule, out, seed=seed, allow_unverified=allow_unverified, quiet=quiet)
