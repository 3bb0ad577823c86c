"""Options of stllm-bench tune: what to choose among, and what the chosen configuration must not exceed."""

from pathlib import Path

import click

from ...runtime.console import FOLDER, Share, gathered, logging_options, options, reports_errors
from ...runtime.options import Options

__all__ = ["tune"]

sample_options = options(
    click.option("--rea", "file", type=FOLDER, required=True, help="JSON file of samples in REA's layout."),
    click.option("--root", type=FOLDER, required=True, help="Folder that the paths in it are relative to."),
    click.option("--fps", type=float, help="Frames a second; by default as recorded, else EPIC-KITCHENS' 60 or 50."),
    click.option("--subset", "spec", default="all", show_default=True, help="all, first:N, end:N, random:N or N%."),
    click.option("--type", "types", multiple=True, help="Question type, before the subset is cut; may repeat."),
    click.option("--scene", "scenes", multiple=True, help="Scene id, before the subset is cut; may repeat."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of random:N and of the order of clips."),
)
choice_options = options(
    click.option("--precision", "precisions", multiple=True, help="Encoders; by default all held; may repeat."),
    click.option("--quant", "quants", multiple=True, help="Language models; by default all held; may repeat."),
    click.option(
        "-f", "--frames", type=int, multiple=True, help="By default the bundle's number to an eighth; may repeat."
    ),
    click.option("--kv", "kinds", multiple=True, help="Types of keys and values; by default f16 and q8_0; may repeat."),
    click.option(
        "--recompute",
        "recomputed",
        type=Share(),
        multiple=True,
        help="Try --reuse-video approximate too, with this share; may repeat.",
    ),
)
limit_options = options(
    click.option("--max-ttft", metavar="TIME", help="Most time to the first text, such as 5s or 500ms."),
    click.option("--max-memory", metavar="SIZE", help="Most resident memory, such as 6GB."),
    click.option(
        "--min-agreement", type=float, help="Least share of the most exact answers, such as 0.98; the quickest wins."
    ),
)
run_options = options(
    click.option("-n", "--max-new-tokens", type=int, default=256, show_default=True, help="Longest answer."),
    click.option("--threads", type=int, help="CPU threads; by default all cores."),
    click.option("--flash-attention/--no-flash-attention", default=None, help="By default libllama decides."),
    click.option("--device", default="auto", show_default=True, help="Of the encoders: auto, cpu, cuda or tensorrt."),
    click.option("--strict", is_flag=True, help="Fail rather than run elsewhere than on that device."),
    click.option("--gpu-layers", type=int, help="Layers of the language model on the GPU."),
)


@click.command()
@click.option("-b", "--bundle", "bundles", type=FOLDER, multiple=True, required=True, help="Folder; may repeat.")
@sample_options
@click.option("--out", type=FOLDER, required=True, help="Folder of measurements, plot and preset; it is continued.")
@click.option("--preset", type=FOLDER, help="File of the preset; by default preset.json in that folder.")
@choice_options
@limit_options
@click.option("--exhaustive", is_flag=True, help="Ask every configuration every question.")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
@gathered(Options, "base")
def tune(
    bundles: tuple[Path, ...],
    file: Path,
    root: Path,
    fps: float | None,
    spec: str,
    types: tuple[str, ...],
    scenes: tuple[str, ...],
    seed: int,
    out: Path,
    preset: Path | None,
    precisions: tuple[str, ...],
    quants: tuple[str, ...],
    frames: tuple[int, ...],
    kinds: tuple[str, ...],
    recomputed: tuple[float, ...],
    max_ttft: str | None,
    max_memory: str | None,
    min_agreement: float | None,
    exhaustive: bool,
    base: Options,
    max_new_tokens: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find out what each approximation costs in answers, and choose one.

    Asks configurations of the bundles the samples, drops early what another one surely covers, prints the Pareto front
    of time, memory and answers, and writes the chosen configuration as a preset for stllm-run --preset.
    """
    from ..rea.dataset import ReaDataset
    from ..rea.subset import Subset
    from .candidates import Choices
    from .limits import Limits, parse_bytes, parse_seconds
    from .tune import Task, tune_bundles

    choices = Choices(precisions, quants, frames, kinds, recomputed)
    limits = Limits(
        parse_seconds("--max-ttft", max_ttft), parse_bytes("--max-memory", max_memory), agreement=min_agreement
    )
    task = Task(bundles, Subset(spec, types, scenes, seed), choices, limits, base, max_new_tokens, exhaustive)
    tune_bundles(task, ReaDataset(file, root, fps=fps), out, preset=preset, as_json=as_json, quiet=quiet)
