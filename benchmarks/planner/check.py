"""The planner held against this machine: predictions beside what questions then take.

    python -m stllm_edge.benchmarks.planner.check --bundle bundle --frames 8 --frames 32 --voxels 20000

Memory has to be within a tenth of what was measured, latency within a quarter, stage by stage and to both sides. Run it
on a machine that does nothing else.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from ...runtime.console import FOLDER, logging_options, reports_errors
from .asking import Asked, ask
from .predict import Choice, predict
from .subject import of_bundle
from .this import measure
from .work import GPU_STAGES, HOST_STAGES, Question

__all__ = ["Line", "compare", "main", "whole"]

MEMORY, LATENCY = 0.1, 0.25
# stages of a plan, by the name under which a question measures them
MEASURED = {"vision": "vision", "points": "points", "aligner": "aligner", "prefill": "llm"}
# finer stages that a question measures, and a prediction holds in one
PARTS = {
    "video": ("resize",),
    "vision": ("load_vision",),
    "points": ("load_points",),
    "aligner": ("load_aligner",),
    "decode": ("sampling",),
}
# a stage shorter than this is the start of its process and the clock's noise, ms
LEAST = 5.0


@dataclass(frozen=True)
class Line:
    """A figure as predicted and as measured.

    Attributes:
        what: stage and unit.
        predicted: the middle of the range.
        measured: by a question.
        bound: how far apart they may be, as a share of what was measured.
    """

    what: str
    predicted: float
    measured: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether they are close enough."""
        return abs(self.predicted - self.measured) <= self.bound * self.measured

    def __str__(self) -> str:
        mark = "✓" if self.holds else "✗"
        return (
            f"{mark} {self.what:14} {self.predicted:10.1f} {self.measured:10.1f} {self.predicted / self.measured:6.2f}"
        )


def compare(bundle: Path, quant: str, frames: Sequence[int], voxels: int, new_tokens: int, repeat: int) -> list[Line]:
    """Predict and ask questions of these sizes."""
    subject = of_bundle(bundle)
    device = measure(subject)
    lines = []
    for count in frames:
        asked = Asked(quant, count, voxels, new_tokens=new_tokens)
        with tempfile.TemporaryDirectory() as folder:
            runs = [ask(bundle, Path(folder), asked) for _ in range(repeat)]
        question = Question(count, runs[0].voxels, runs[0].tokens)
        found = predict(device, subject, question, Choice("fp32", quant))
        for stage, planned in MEASURED.items():
            said = found.memory[planned] / 1e6
            lines.append(Line(f"{planned} MB, {count}", said, max(run.peak_mb[stage] for run in runs), MEMORY))
        for stage in (*HOST_STAGES, *GPU_STAGES):
            measured = median(whole(run.milliseconds, stage) for run in runs)
            said = sum(found.milliseconds[stage]) / 2
            if measured >= LEAST:
                lines.append(Line(f"{stage} ms, {count}", said, measured, LATENCY))
    return lines


def whole(milliseconds: Mapping[str, float], stage: str) -> float:
    """Of a stage with its parts."""
    return sum(milliseconds.get(name, 0.0) for name in (stage, *PARTS.get(stage, ())))


@click.command()
@click.option("--bundle", type=FOLDER, required=True, help="An exported bundle.")
@click.option("--quant", default="Q8_0", show_default=True, help="Of the language model.")
@click.option("--frames", type=int, multiple=True, default=(8, 32), show_default=True, help="Frames; repeatable.")
@click.option("--voxels", type=int, default=20_000, show_default=True, help="Voxels of the room.")
@click.option("--new-tokens", type=int, default=16, show_default=True, help="Tokens of the answer.")
@click.option("--repeat", type=int, default=3, show_default=True, help="Runs of a question; the median counts.")
@logging_options
@reports_errors
def main(
    bundle: Path, quant: str, frames: tuple[int, ...], voxels: int, new_tokens: int, repeat: int, quiet: bool
) -> None:
    """Hold predictions against what questions take; status 1 where one is off."""
    lines = compare(bundle, quant, frames, voxels, new_tokens, repeat)
    print(f"  {'stage, frames':14} {'predicted':>10} {'measured':>10}  ratio")
    print("\n".join(map(str, lines)))
    sys.exit(any(not line.holds for line in lines))


if __name__ == "__main__":
    main()
