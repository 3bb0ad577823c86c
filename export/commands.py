"""Options of stllm-export."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..runtime.console import FOLDER, logging_options, options, peak_memory, reports_errors
from ..runtime.errors import BadInput

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
precision_option = click.option(
    "--precision", "precisions", multiple=True, default=["fp32"], show_default=True, help="fp32 or fp16; may repeat."
)
quant_option = click.option(
    "--quant", "quants", multiple=True, default=["Q4_K_M"], show_default=True, help="GGUF type; may repeat."
)


@click.command()
@checkpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def inspect(checkpoint: Path, base: Path | None, point_encoder: Path | None, as_json: bool, quiet: bool) -> None:
    """Print the parts of a checkpoint: sizes, types, what is unused, what is missing."""
    from .checkpoint.inspection import inspect_checkpoint, render

    report = inspect_checkpoint(checkpoint, base, point_encoder)
    click.echo(json.dumps(report, indent=1) if as_json else render(report))
    if report["missing"] or report["unknown"] or report["misfits"]:
        sys.exit(1)


@click.command()
@checkpoint_options
@output_options
@precision_option
@logging_options
@reports_errors
def onnx(**values: Any) -> None:
    """Write the vision, points and aligner graphs."""
    from .pipeline import Export

    with peak_memory(values["quiet"]):
        Export.from_options(values).run(precisions=values["precisions"])


@click.command()
@checkpoint_options
@output_options
@quant_option
@logging_options
@reports_errors
def gguf(**values: Any) -> None:
    """Write the language model."""
    from .pipeline import Export

    with peak_memory(values["quiet"]):
        Export.from_options(values).run(quants=values["quants"])


@click.command()
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
    from .pipeline import Export

    with peak_memory(values["quiet"]):
        exported = Export.from_options(values)
        if verified:
            exported.require_views(scene, video)
        exported.run(precisions=values["precisions"], quants=values["quants"])
        if verified:
            print_rows(exported.verify(scene, video, values["precisions"], values["quants"]))


@click.command()
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
    from .pipeline import Export

    with peak_memory(values["quiet"]):
        exported = Export.from_options(values)
        print_rows(exported.verify(scene, video, values["precisions"], values["quants"], positions))


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
def tensorrt(bundle: Path, check: bool, force: bool, as_json: bool, quiet: bool, **values: Any) -> None:
    """Build TensorRT engines for a device, or check that they can be built."""
    from ..runtime.console import Progress
    from .tensorrt.engines import Engines

    with peak_memory(quiet):
        engines = Engines(bundle, **values, progress=Progress(quiet))
        if check and (force or values["backend"]):
            raise BadInput("--check: builds nothing, with tensorrt-rtx; leave --force and --backend out")
        if as_json and not check:
            raise BadInput("--json: is the form of a --check; add it")
        if not check:
            engines.build(force=force)
            return
        from .tensorrt.check import Check

        if not print_findings(Check(engines), as_json):
            sys.exit(1)


def print_findings(check: Any, as_json: bool) -> bool:
    """Print what a check finds, line by line or as JSON; whether all passed."""
    if as_json:
        found = list(check.findings())
        click.echo(json.dumps(check.description | {"graphs": [asdict(finding) for finding in found]}, indent=1))
        return all(finding.passed for finding in found)
    passed = True
    for finding in check.findings():
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
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)
