"""What stllm-export prints: results on stdout, a line each or one JSON object; status 1 where something failed."""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..runtime.errors import BadInput

# a device that builds its engines has neither torch nor onnx
if TYPE_CHECKING:
    from .comparison import Row
    from .gguf.quantiser import Plan
    from .tensorrt.check import Check
    from .tensorrt.engines import Engines

__all__ = ["build_or_check", "print_inspection", "print_plans", "print_rows"]


def print_inspection(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a checkpoint holds; leave with status 1 if it is not a whole ST-LLM."""
    click.echo(json.dumps(report, indent=1) if as_json else render(report))
    if report["missing"] or report["unknown"] or report["misfits"]:
        sys.exit(1)


def render(report: Mapping[str, Any]) -> str:
    """The report as text: a table of parts, the sizes, and what is wrong."""
    lines = [f"{'part':<9}{'tensors':>8}{'parameters':>15}{'MB':>10}  types"]
    for part, row in report["parts"].items():
        types = ", ".join(row["types"]) or "-"
        lines.append(f"{part:<9}{row['tensors']:>8}{row['parameters']:>15,}{row['bytes'] / 1e6:>10.1f}  {types}")
    lines.append("")
    for part, sizes in report["geometry"].items():
        stated = ", ".join(
            f"{name} {list(value) if isinstance(value, tuple) else value}" for name, value in sizes.items()
        )
        lines.append(f"{part}: {stated}")
    lines.append("")
    for problem in ("missing", "unknown", "misfits"):
        lines.append(f"{problem}: {len(report[problem]) or 'none'}")
        lines += [f"  {name}" for name in report[problem]]
    return "\n".join(lines)


def print_rows(rows: Iterable["Row"]) -> None:
    """Print comparisons as they come; leave with status 1 if one failed."""
    failed = []
    for row in rows:
        click.echo(str(row))
        if row.passed is False:
            failed.append(f"{row.part} {row.stage}")
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


def print_plans(plans: Iterable["Plan"], *, as_json: bool) -> None:
    """Print what each class of tensors will take, and which tensors get another type than they should."""
    if as_json:
        listed = [
            {
                "name": plan.recipe.name,
                "type": plan.recipe.type,
                "bytes": plan.size,
                "needs_matrix": plan.needs_matrix,
                "classes": {
                    kind: {"types": types, "tensors": count, "bytes": size}
                    for kind, (types, count, size) in plan.classes().items()
                },
                "fallbacks": {tensor.name: [tensor.wanted, tensor.type] for tensor in plan.fallbacks},
            }
            for plan in plans
        ]
        click.echo(json.dumps({"plans": listed}, indent=1))
        return
    for plan in plans:
        click.echo(f"{plan.recipe.name}: {plan.size / 1e6:.1f} MB{' with an imatrix' if plan.needs_matrix else ''}")
        for kind, (types, count, size) in plan.classes().items():
            click.echo(f"  {kind:<14}{count:>5} tensors {size / 1e6:>10.2f} MB  {', '.join(types)}")
        click.echo(f"  {'head':<14}{'':>13} {plan.head / 1e6:>10.2f} MB")
        for tensor in plan.fallbacks:
            click.echo(f"  {tensor.name} becomes {tensor.type}: no block of {tensor.wanted} divides its rows")


def build_or_check(engines: "Engines", *, check: bool, force: bool, as_json: bool) -> None:
    """Build engines, or print what a check of their graphs finds and leave with status 1 if one is refused.

    Raises:
        BadInput: an option belongs to the other of the two.
    """
    if check and (force or engines.backend):
        raise BadInput("--check: builds nothing, with tensorrt-rtx; leave --force and --backend out")
    if as_json and not check:
        raise BadInput("--json: is the form of a --check; add it")
    if not check:
        engines.build(force=force)
        return
    from .tensorrt.check import Check

    if not print_findings(Check(engines), as_json):
        sys.exit(1)


def print_findings(check: "Check", as_json: bool) -> bool:
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
