"""The demo: a small trained ST-LLM, exported, asked about rooms that it has never seen, and about a real capture."""

import argparse
import shutil
from itertools import cycle
from pathlib import Path

import click

from ..export.checkpoint.checkpoint import Checkpoint
from ..export.commands import everything
from ..runtime.bundle.manifest import Bundle
from ..runtime.commands import run as ask
from ..runtime.errors import BadBundle
from .captures import write_arc2017
from .checkpoints import TRAINED
from .rea.commands import run as answer
from .rea.commands import synth
from .rea.dataset import QUESTION_TYPES, ReaDataset, Sample
from .rea.results import Record, read_results
from .training.features import FRAMES, VOXEL_SIZE
from .world.picture import draw_clip

__all__ = ["SETTINGS", "main"]

# not the seed of the training set: the model has never seen these rooms
ROOMS, SEED = 3, 20_260_000
SETTINGS = ("--voxel-size", VOXEL_SIZE, "--frames", FRAMES, "--no-time-instruction")


def main() -> None:
    """Build bundle and rooms once and ask; every step prints the command that does the same."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for bundle, rooms, answers and pictures")
    out: Path = parser.parse_args().out
    bundle, rooms, answers = out / "bundle", out / "rooms", out / "answers"

    if not is_of(bundle, TRAINED):
        for stale in (bundle, answers):
            shutil.rmtree(stale, ignore_errors=True)
        call("stllm-export all", everything, "--ckpt", TRAINED, "--out", bundle, "--quant", "Q8_0", *SETTINGS)
    if not (rooms / "val.json").exists():
        call("stllm-bench rea synth", synth, "--out", rooms, "--scenes", ROOMS, "--seed", SEED, "--val-share", 1)
    places = ("--rea", rooms / "val.json", "--root", rooms)
    call("stllm-bench rea run", answer, "--bundle", bundle, *places, "--out", answers, "--threads", 1)

    samples = {sample.id: sample for sample in ReaDataset(rooms / "val.json", rooms).samples}
    _, records = read_results(answers / "results.jsonl")
    scenes = cycle(sorted({sample.scene_id for sample in samples.values()}))
    for asked in zip(QUESTION_TYPES, scenes, strict=False):
        record = next(record for record in records if (record["question_type"], record["scene_id"]) == asked)
        show(record, samples[record["id"]], rooms, out)
    scene, video = write_arc2017(out / "arc2017")
    call(
        "stllm-run",
        ask,
        "--bundle",
        bundle,
        "--scene",
        scene,
        "--video",
        video,
        "--frames",
        1,
        "-q",
        records[0]["query"],
    )
    print("\nThe last answer is about a real RGB-D frame: the small model knows generated rooms only and has to guess.")


def is_of(bundle: Path, checkpoint: Path) -> bool:
    """Whether a bundle is there and was made from a checkpoint."""
    try:
        return Bundle(bundle).is_of(Checkpoint(checkpoint).digest())
    except BadBundle:
        return False


def show(record: Record, sample: Sample, world: Path, out: Path) -> None:
    """Print a question with answer and truth, and draw the room that it is about."""
    picture = out / f"{record['question_type']}.png"
    draw_clip(sample, world / "world" / f"{sample.scene_id}.json", picture)
    print(f"\n{record['question_type']}, room {sample.scene_id}, drawn in {picture}")
    for label, text in (("question", record["query"]), ("answer", record["pred"]), ("truth", record["gt"])):
        print(f"  {label:<9}{text}")


def call(program: str, command: click.Command, *arguments: object) -> None:
    """Run a command in this process, after printing it."""
    words = [f'"{word}"' if " " in str(word) else str(word) for word in arguments]
    print(f"\n$ {program} {' '.join(words)}", flush=True)
    command.main([str(argument) for argument in arguments], program, standalone_mode=False)


if __name__ == "__main__":
    main()
