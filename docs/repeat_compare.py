"""How often `stllm-bench compare` is right on this machine: the same measurement again and again, and one slowed down.

Each run is compared with the one before it, which should show no difference. Then a run's even repetitions are compared
with its odd ones, of which one stage is made longer by a factor: measured in turns, so that it should be found.

    python docs/repeat_compare.py --out runs -- --bundle B --rea FILE --root DIR --subset first:6 --cold 0

What follows `--` goes to `stllm-bench latency`. Runs that are in the folder already are not measured again,
so the same command goes on where it was.
"""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click
from stllm_edge.benchmarks.reports.compare import compare
from stllm_edge.benchmarks.reports.runs import FIRST_TOKEN, TOTAL, Answer, Run, read_run

PROGRAM = "from stllm_edge.cli import bench; bench(prog_name='stllm-bench')"


def measured(folder: Path, arguments: tuple[str, ...]) -> Run:
    """The run in a folder, measured if it is not there, and gone on with if it was interrupted."""
    file = folder / "results.jsonl"
    if not file.exists() or '"kind": "end"' not in file.read_text(encoding="utf-8"):
        command = [sys.executable, "-c", PROGRAM, "latency", *arguments, "--out", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return read_run(file)


def slowed(answer: Answer, stage: str, factor: float) -> Answer:
    """An answer with a longer stage; the first token and the whole come later by as much."""
    longer = answer.seconds.get(stage, 0.0) * (factor - 1)
    later = {name: answer.seconds[name] + longer for name in (stage, FIRST_TOKEN, TOTAL) if name in answer.seconds}
    return replace(answer, seconds={**answer.seconds, **later})


def in_turns(run: Run, stage: str, factor: float) -> tuple[Run, Run]:
    """The even repetitions of a run, and the odd ones with a longer stage, as if two bundles had taken turns."""
    even, odd = (
        [replace(answer, repetition=answer.repetition // 2) for answer in run.answers if answer.repetition % 2 == rest]
        for rest in (0, 1)
    )
    slow = tuple(slowed(answer, stage, factor) for answer in odd)
    other = {**run.about, "bundle": "slowed"}
    return Run(run.path, run.about, tuple(even), (), run.end), Run(run.path, other, slow, (), run.end)


@click.command()
@click.option("--runs", default=21, show_default=True)
@click.option("--stage", default="aligner", show_default=True)
@click.option("--factor", default=1.15, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(runs: int, stage: str, factor: float, out: Path, arguments: tuple[str, ...]) -> None:
    """Print how often each verdict was given."""
    found = [measured(out / f"{number:02d}", arguments) for number in range(runs)]
    again = [compare(before, after) for before, after in pairwise(found)]
    print(f"the same again, {len(again)} times:", dict(Counter(comparison.verdict for comparison in again)))
    planted = [compare(*in_turns(run, stage, factor)) for run in found]
    right = sum(
        all(change.verdict == "slower" for change in comparison.changes if change.stage == stage)
        for comparison in planted
    )
    print(f"{stage} slower by a factor of {factor}, in turns: found in {right} of {len(planted)}")
    for reason, count in Counter(reason for comparison in again for reason in comparison.reasons).most_common(8):
        print(f"{count:3d} times: {reason}")


if __name__ == "__main__":
    main()
