"""The shards of a run put together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...runtime.errors import BadInput
from ..folders import make_folder
from .results import Record, in_order, read_results, write_predictions, write_results

__all__ = ["Merged", "merge_results"]


@dataclass(frozen=True)
class Merged:
    """Answers of all shards in the order of the data set, and the ids that have none."""

    records: list[Record]
    missing: list[str]


def merge_results(files: Sequence[Path], out: Path) -> Merged:
    """Write `results.jsonl` and `predictions.json` from the results files of one run.

    Args:
        files: results of the shards, in any order.
        out: folder of the two files.

    Raises:
        BadInput: the files are of different runs, two of them answer the same sample, or `out` is no folder or holds
            the answers of another run.
    """
    first, *_ = headers = [read_results(file) for file in files]
    header = first[0]
    answered: dict[str, Path] = {}
    records: list[Record] = []
    for file, (found, answers) in zip(files, headers, strict=True):
        if reason := found.difference(header):
            raise BadInput(f"{file}: {reason} as in {files[0]}; merge the shards of one run")
        doubled = [record["id"] for record in answers if record["id"] in answered]
        if doubled:
            raise BadInput(
                f"{file}: answers {len(doubled)} ids that {answered[doubled[0]]} answers too, {doubled[0]} first; "
                "leave one of the files out"
            )
        answered |= dict.fromkeys((record["id"] for record in answers), file)
        records += answers
    records = in_order(header, records)
    make_folder(out)
    if (merged := out / "results.jsonl").exists() and (reason := read_results(merged)[0].difference(header)):
        raise BadInput(f"{merged}: {reason} as in {files[0]}; choose another --out")
    write_results(out / "results.jsonl", replace(header, shard="1/1"), records)
    write_predictions(out / "predictions.json", header, records)
    return Merged(records, [name for name in header.ids if name not in answered])
