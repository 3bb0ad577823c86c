"""Options of stllm-calib."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..runtime.console import FOLDER, Progress, logging_options, reports_errors

__all__ = ["audit", "merge", "sensitivity"]


@click.command()
@click.option("--bundle", type=FOLDER, required=True, help="Bundle folder.")
@click.option("--precision", required=True, help="fp16, int8 or a mix that the bundle holds.")
@click.option("--provider", default="cpu", show_default=True, help="Whose graphs: portable, cpu or tensorrt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def audit(bundle: Path, precision: str, provider: str, as_json: bool, quiet: bool) -> None:
    """List the nodes that stay float32 in encoders of FP16 or INT8, and why."""
    from .audit import audit

    found = list(audit(bundle, precision, provider))
    if as_json:
        click.echo(json.dumps([asdict(kept) for kept in found], indent=1))
        return
    for kept in found:
        click.echo(str(kept))


@click.command()
@click.option("--ckpt", "checkpoint", type=FOLDER, required=True, help="Checkpoint folder as the trainer saved it.")
@click.option("--calibration", type=FOLDER, required=True, help="Set of stllm-calib collect.")
@click.option("--bundle", type=FOLDER, help="Its language model is asked too, for the divergence of its logits.")
@click.option("--quant", help="Which language model; by default the bundle's first.")
@click.option("--samples", type=int, default=1, show_default=True, help="Of those that are held out.")
@click.option("--budget", type=float, help="Most rel-rms of prefix and video tokens; finds the mix that keeps it.")
@click.option("--plot", type=FOLDER, help="Draw the blocks into this SVG file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def sensitivity(
    checkpoint: Path,
    calibration: Path,
    bundle: Path | None,
    quant: str | None,
    samples: int,
    budget: float | None,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure INT8 one block at a time: error at the prefix tokens and at the language model's logits, ranked."""
    from .plot import draw
    from .sensitivity import Sensitivity, require_budget

    require_budget(budget)
    measured = Sensitivity(checkpoint, calibration, bundle, quant, samples, Progress(quiet))
    ranked = measured.effects()
    if plot is not None:
        draw(ranked, plot)
    if not as_json:
        for effect in ranked:
            click.echo(str(effect))
    kept, mix = ([], None) if budget is None else measured.within(budget, ranked)
    if as_json:
        found = {"blocks": [effect.to_json() for effect in ranked], "keep_float": kept}
        click.echo(json.dumps(found | ({} if mix is None else {"mix": mix.to_json()}), indent=1))
    elif mix is not None:
        click.echo(f"\n{mix}")
        click.echo(" ".join(f"--keep-float '{pattern}'" for pattern in kept) or "no block has to stay float32")


@click.command()
@click.argument("matrices", type=FOLDER, nargs=-1, required=True)
@click.option("--out", type=FOLDER, required=True, help="GGUF file.")
@logging_options
@reports_errors
def merge(matrices: tuple[Path, ...], out: Path, quiet: bool) -> None:
    """Add importance matrices of one model up."""
    from ..export.gguf.matrix import Matrix

    total, *others = [(Matrix.read(path), path) for path in matrices]
    found = total[0]
    for other, path in others:
        found = found.plus(other, path)
    found.write(out)
    click.echo(f"{out}: {found.chunks} prompts")
