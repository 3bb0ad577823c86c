"""Options of stllm-export."""

from pathlib import Path

import click

from ..runtime.bundle.manifest import Defaults
from ..runtime.console import (
    FOLDER,
    Progress,
    gathered,
    logging_options,
    options,
    peak_memory,
    reports_errors,
    view_options,
)
from ..runtime.options import Recording
from .wanted import Wanted

__all__ = ["everything", "gguf", "inspect", "onnx", "tensorrt", "verify"]

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
sample_options = options(
    click.option("--scene", type=FOLDER, help="Scene to compare on; by default a small one that is built in."),
    click.option("--video", type=FOLDER, help="Clip to compare on."),
    view_options,
)
precision_options = options(
    click.option(
        "--precision",
        "precisions",
        multiple=True,
        default=["fp32"],
        show_default=True,
        help="fp32, fp16, int8, or a mix such as vision=int8,points=fp32; may repeat.",
    ),
    click.option("--calibration", type=FOLDER, help="Set of stllm-calib collect: INT8 needs it, FP16 uses it."),
    click.option(
        "--keep-float", multiple=True, metavar="WEIGHTS", help="Products that stay float32, as layers.3.*; may repeat."
    ),
    click.option(
        "--smooth/--no-smooth",
        default=True,
        show_default=True,
        help="Move outlier channels into weights before INT8, where that lowers the error.",
    ),
    click.option("--allow-unverified", is_flag=True, help="Write encoders that fail their gate; the bundle says so."),
)
quant_options = options(
    click.option(
        "--quant",
        "quants",
        multiple=True,
        show_default="Q4_K_M, where there is no recipe or target size",
        help="GGUF type; may repeat.",
    ),
    click.option("--tensor", "tensors", multiple=True, metavar="PATTERN=TYPE", help="Other type for some; may repeat."),
    click.option("--target-size", "size", metavar="SIZE", help="As 5.0GiB: types are measured and chosen to fill it."),
    click.option("--recipe", "files", type=FOLDER, multiple=True, help="JSON with type, name, tensors; may repeat."),
    click.option("--imatrix", "matrix", type=FOLDER, help="Importance matrix, from stllm-calib imatrix or llama.cpp."),
    click.option("--name", help="Under which the bundle holds the one language model; by default its type."),
)


@click.command()
@checkpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def inspect(checkpoint: Path, base: Path | None, point_encoder: Path | None, as_json: bool, quiet: bool) -> None:
    """Print the parts of a checkpoint: sizes, types, what is unused, what is missing."""
    from .checkpoint.inspection import inspect_checkpoint
    from .reporting import print_inspection

    print_inspection(inspect_checkpoint(checkpoint, base, point_encoder), as_json=as_json)


@click.command()
@checkpoint_options
@output_options
@precision_options
@logging_options
@reports_errors
@gathered(Defaults, "defaults")
def onnx(
    checkpoint: Path,
    base: Path | None,
    point_encoder: Path | None,
    out: Path,
    force: bool,
    defaults: Defaults,
    precisions: tuple[str, ...],
    calibration: Path | None,
    keep_float: tuple[str, ...],
    smooth: bool,
    allow_unverified: bool,
    quiet: bool,
) -> None:
    """Write the vision, points and aligner graphs."""
    from .int8.recipe import Calibrating
    from .pipeline import Export

    calibrating = Calibrating(calibration, keep_float, smooth, allow_unverified)
    with peak_memory(quiet):
        exported = Export.open(checkpoint, out, base, point_encoder, defaults, force=force, quiet=quiet)
        exported.run(precisions, calibrating=calibrating)


@click.command()
@checkpoint_options
@output_options
@quant_options
@sample_options
@click.option("--lora-as-adapter", "adapter", is_flag=True, help="Write a LoRA adapter beside its base, not merged.")
@click.option("--dry-run", is_flag=True, help="Print the size of each class of tensors, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a dry run as one JSON object.")
@logging_options
@reports_errors
@gathered(Recording, "recording")
@gathered(Defaults, "defaults")
@gathered(Wanted, "wanted")
def gguf(
    checkpoint: Path,
    base: Path | None,
    point_encoder: Path | None,
    out: Path,
    force: bool,
    defaults: Defaults,
    wanted: Wanted,
    recording: Recording,
    adapter: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the language model."""
    from .gguf.recipe import recipes_of
    from .pipeline import Export
    from .reporting import print_plans

    with peak_memory(quiet):
        recipes = recipes_of(wanted)
        exported = Export.open(checkpoint, out, base, point_encoder, defaults, force=force, quiet=quiet)
        if dry_run or as_json:
            print_plans(exported.plans(recipes, recording), as_json=as_json)
        else:
            exported.run(quants=recipes, adapter=adapter, recording=recording)


@click.command()
@checkpoint_options
@output_options
@precision_options
@quant_options
@sample_options
@click.option(
    "--verify/--no-verify", "verified", default=True, show_default=True, help="Compare with PyTorch at the end."
)
@logging_options
@reports_errors
@gathered(Recording, "recording")
@gathered(Defaults, "defaults")
@gathered(Wanted, "wanted")
def everything(
    checkpoint: Path,
    base: Path | None,
    point_encoder: Path | None,
    out: Path,
    force: bool,
    defaults: Defaults,
    precisions: tuple[str, ...],
    calibration: Path | None,
    keep_float: tuple[str, ...],
    smooth: bool,
    allow_unverified: bool,
    wanted: Wanted,
    recording: Recording,
    verified: bool,
    quiet: bool,
) -> None:
    """Write encoders and language model, then verify them."""
    from .gguf.recipe import recipes_of
    from .int8.recipe import Calibrating
    from .pipeline import Export
    from .reporting import print_rows

    calibrating = Calibrating(calibration, keep_float, smooth, allow_unverified)
    with peak_memory(quiet):
        recipes = recipes_of(wanted)
        exported = Export.open(checkpoint, out, base, point_encoder, defaults, force=force, quiet=quiet)
        print_rows(exported.everything(precisions, recipes, recording, verified=verified, calibrating=calibrating))


@click.command()
@click.option("--bundle", "out", type=FOLDER, required=True, help="Bundle folder.")
@checkpoint_options
@sample_options
@click.option("--precision", "precisions", multiple=True, help="Encoders to compare; by default all.")
@click.option("--quant", "quants", multiple=True, help="Language models to compare; by default all.")
@click.option(
    "--positions",
    type=int,
    default=256,
    show_default=True,
    help="Longest prompt for the language model; 8192 takes whole clips, and minutes.",
)
@click.option("--deep", is_flag=True, help="Read every tensor of the language models back instead; runs nothing.")
@logging_options
@reports_errors
@gathered(Recording, "recording")
def verify(
    out: Path,
    checkpoint: Path,
    base: Path | None,
    point_encoder: Path | None,
    recording: Recording,
    precisions: tuple[str, ...],
    quants: tuple[str, ...],
    positions: int,
    deep: bool,
    quiet: bool,
) -> None:
    """Run bundle and PyTorch model side by side, one line a stage."""
    from .pipeline import Export
    from .reporting import print_rows

    with peak_memory(quiet):
        exported = Export.open(checkpoint, out, base, point_encoder, quiet=quiet)
        print_rows(exported.verify(recording, precisions, quants, positions, deep=deep))


@click.command()
@click.option("--bundle", type=FOLDER, required=True, help="Bundle folder.")
@click.option("--target", help="Kind of device, as orin-nano or rtx-ada; by default this machine's GPU.")
@click.option(
    "--backend", help="tensorrt, on the device, or tensorrt-rtx, ahead of time; by default as the target has it."
)
@click.option("--precision", "precisions", multiple=True, help="Encoders to build; by default all.")
@click.option("--profile", multiple=True, help="NAME=MIN:OPT:MAX of batch, frames, voxels or text; voxels may repeat.")
@click.option("--profile-from", "measured", type=FOLDER, help="REA file; its scenes say how many voxels there are.")
@click.option("--check", is_flag=True, help="Only compile, ahead of time and without a GPU, and report.")
@click.option("--force", is_flag=True, help="Replace engines that the bundle already holds.")
@click.option("--json", "as_json", is_flag=True, help="Print a check as one JSON object.")
@logging_options
@reports_errors
def tensorrt(
    bundle: Path,
    target: str | None,
    backend: str | None,
    precisions: tuple[str, ...],
    profile: tuple[str, ...],
    measured: Path | None,
    check: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Build TensorRT engines for a device, or check that they can be built."""
    from .reporting import build_or_check
    from .tensorrt.engines import Engines

    with peak_memory(quiet):
        engines = Engines(bundle, target, backend, precisions, profile, measured, Progress(quiet))
        build_or_check(engines, check=check, force=force, as_json=as_json)
