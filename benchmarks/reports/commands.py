"""Options of stllm-bench show and compare: results of stllm-bench latency as tables, as a page, against each other."""

import json
import sys
from pathlib import Path

import click

from ...runtime.console import FOLDER, logging_options, reports_errors

__all__ = ["compare", "show"]

SLOWER = 1


class Share(click.ParamType):
    """A share as `5%` or `0.05`."""

    name = "share"

    def convert(self, value: str | float, param: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            self.fail(f"{value!r} is no share between 0 and 1; write 5% or 0.05", param, context)
        return share


@click.command()
@click.argument("files", type=FOLDER, nargs=-1, required=True, metavar="RESULTS...")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Page to write; it needs no network.")
@click.option("--stages/--no-stages", default=None, help="Tables of stages; by default of a single run only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def show(files: tuple[Path, ...], html: Path | None, stages: bool | None, as_json: bool, quiet: bool) -> None:
    """Show results of stllm-bench latency, of any number of devices, as one table.

    RESULTS are results.jsonl of runs, or their folders; those of an interrupted run count as far as they go.
    """
    from .runs import read_runs
    from .table import headline
    from .table import show as tables

    runs = read_runs(files)
    if html is not None:
        from .page import write_page

        write_page(html, runs)
    click.echo(json.dumps({"runs": [headline(run) for run in runs]}) if as_json else tables(runs, stages=stages))


@click.command()
@click.argument("files", type=FOLDER, nargs=-1, required=True, metavar="FIRST [SECOND]")
@click.option(
    "--fail-above",
    "margin",
    type=Share(),
    help="Margin, as 5%, and status 1 if the second is surely slower by more; by default 5% and status 0.",
)
@click.option(
    "--across",
    type=click.Choice(["workload", "device", "power-mode"]),
    multiple=True,
    help="Compare although this differs; more than once for several.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the intervals.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@logging_options
@reports_errors
def compare(
    files: tuple[Path, ...], margin: float | None, across: tuple[str, ...], seed: int, as_json: bool, quiet: bool
) -> None:
    """Say whether the second of two results of stllm-bench latency is slower than the first.

    FIRST and SECOND are results.jsonl of two runs; a single file whose bundles took turns holds both. Each stage is
    compared question by question. Where the 95 % interval of the ratio lies beyond the margin the second is slower or
    faster; where it lies within, there is no difference; where it straddles, it cannot tell, and says why.
    """
    from ...runtime.errors import BadInput
    from .compare import MARGIN, compare_files
    from .table import comparison_table

    if len(files) > 2:
        raise BadInput(f"{len(files)} files: expected the results of a first and a second run")
    comparison = compare_files(files, margin=margin or MARGIN, across=across, seed=seed)
    click.echo(comparison.to_json() if as_json else comparison_table(comparison))
    if margin is not None and comparison.verdict == "slower":
        sys.exit(SLOWER)
