"""An ST-LLM whose video is loud in a few channels, constructed, and what importance matrices are worth to it.

    python -m stllm_edge.benchmarks.quality.outliers FOLDER

In a hundredth of the channels, rows of the text are zero and what the projector writes for video is thirty times as
large. All else is of random weights, or of a checkpoint with --ckpt. Residual streams keep the channels: what enters
the products of every layer is loud there where video is, and nowhere else.

A matrix of whole prompts and one of text are collected, each type is made without one, with the first and with the
second, and all go through libllama with the prompts of other rooms, one a room.
"""

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from ...export.gguf.recipe import Recipe
from ...export.model.streaming import EMBEDDING
from ...export.pipeline import Export
from ...runtime.bundle.geometry import Geometry
from ...runtime.bundle.manifest import Bundle, Defaults
from ...runtime.bundle.precisions import FP32
from ...runtime.console import Progress
from ...runtime.errors import StllmError
from ...runtime.options import Options
from ..checkpoints import TINY, write_checkpoint
from ..folders import make_new_folder
from ..latency.statistics import Interval, bootstrap
from ..rea.dataset import ReaDataset, Sample, by_clip
from ..rea.prompts import Calibration, Samples, TextFile, make_matrix, opened, parse_weights
from ..rea.subset import Subset
from ..world.synth import Recipe as World
from ..world.synth import write_synth
from .evaluation import CLASSES, Evaluation, Measured

__all__ = ["Comparison", "add_outliers", "compare", "write_loud"]

# one row of a matrix is two blocks of K-quants; most of a prompt is video
GEOMETRY = replace(
    TINY,
    vision=replace(TINY.vision, image_size=112, grid=4),
    llm=replace(TINY.llm, width=512, layers=4, heads=8, ffn=1536),
)
VIDEO = ("model.mm_projector.2.weight", "model.mm_projector.2.bias", "model.image_newline")
SHARE, LOUDER = 0.01, 30.0
TYPES = ("Q4_K_M", "Q3_K_M", "Q2_K")
REFERENCE = "F32"
TEXT, WHOLE = "text", "whole"
MATRICES = {"none": "no matrix", TEXT: "matrix of text", WHOLE: "matrix of whole prompts"}
POSITIONS = {"before": ("before",), "video": ("video",), "after": ("after", "answer"), "all": CLASSES}
# prompts of which a matrix is made, and tokens of a piece of text
COLLECTED, PIECE = "random:24", 256
DEFAULTS = Defaults(voxel_size=0.2, frames=12, time_instruction=False)


@dataclass(frozen=True)
class Comparison:
    """One type at positions of one kind.

    Attributes:
        type: of the file.
        positions: of `POSITIONS`; before the video are instructions and scene, after it question and answer.
        prompts: how many.
        found: by matrix, mean KL divergence from F32, nats, and its 95 % interval, of whole prompts drawn again.
    """

    type: str
    positions: str
    prompts: int
    found: Mapping[str, Interval]

    @property
    def best(self) -> str | None:
        """The matrix whose interval lies below all others; None where they meet."""
        first, *others = sorted(self.found, key=lambda name: self.found[name].value)
        high, lows = self.found[first].high, [self.found[name].low for name in others]
        return first if high is not None and all(low is not None and high < low for low in lows) else None

    def __str__(self) -> str:
        cells = [
            f"{'**' if name == self.best else ''}{shown(interval)}{'**' if name == self.best else ''}"
            for name, interval in self.found.items()
        ]
        return f"| {' | '.join([self.type, self.positions, *cells])} |"


def shown(interval: Interval) -> str:
    """An interval in words."""
    bounds = "" if interval.low is None else f" [{interval.low:.2e}, {interval.high:.2e}]"
    return f"{interval.value:.2e}{bounds}"


def add_outliers(folder: Path, share: float = SHARE, louder: float = LOUDER, seed: int = 0) -> list[int]:
    """Make a checkpoint's video loud in a few channels that its text does not have.

    Args:
        folder: a checkpoint with whole weights, which is changed.
        share: of the channels.
        louder: factor of what the projector writes there.
        seed: of the choice.

    Returns:
        The channels.
    """
    chosen: list[int] = []
    for file in sorted(folder.glob("*.safetensors")):
        tensors = load_file(file)
        for name in {EMBEDDING, *VIDEO} & set(tensors):
            values = tensors[name]
            width = values.shape[-1] if name == EMBEDDING else len(values)
            chosen = sorted(np.random.default_rng(seed).choice(width, max(1, round(share * width)), replace=False))
            if name == EMBEDDING:
                values[:, chosen] = 0
            else:
                values[chosen] *= louder
        save_file(tensors, file, metadata={"format": "pt"})
    return [int(channel) for channel in chosen]


def write_loud(
    folder: Path,
    source: Path | None = None,
    *,
    geometry: Geometry = GEOMETRY,
    louder: float = LOUDER,
    seed: int = 0,
) -> None:
    """Write a loud checkpoint into a new folder: of random weights, or a copy of one in whole weights.

    Raises:
        BadInput: the folder holds something, or cannot be made.
    """
    make_new_folder(folder)
    if source is None:
        write_checkpoint(folder, geometry, seed=seed)
    else:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    add_outliers(folder, louder=louder, seed=seed)


def compare(
    checkpoint: Path,
    folder: Path,
    *,
    prompts: int,
    rooms: int = 16,
    types: Sequence[str] = TYPES,
    progress: Progress | None = None,
) -> Iterator[Comparison]:
    """Collect both matrices, make all files, and compare them on rooms that neither matrix has seen.

    Args:
        checkpoint: loud or not.
        folder: gets rooms, matrices and the bundle.
        prompts: rooms that are held out, with one question each.
        rooms: that matrices are collected from.
        types: of files.
        progress: where to report.
    """
    matrices = collect(checkpoint, folder, write_rooms(folder / "calib", rooms, seed=11))
    recipes = [Recipe(f"{kind}-{name}", kind, (), matrices.get(name)) for kind in types for name in MATRICES]
    export = Export.open(checkpoint, folder / "bundle", defaults=DEFAULTS, quiet=True)
    export.run([FP32], [REFERENCE, *recipes])
    clips = by_clip(write_rooms(folder / "unseen", prompts, seed=2).samples)
    # the kinds of questions in turn
    yield from compared(
        folder / "bundle", [clip[place % len(clip)] for place, clip in enumerate(clips)], types, progress
    )


def compared(
    bundle: Path, samples: Sequence[Sample], types: Sequence[str], progress: Progress | None
) -> Iterator[Comparison]:
    """All types of a bundle on samples."""
    names = tuple(f"{kind}-{name}" for kind in types for name in MATRICES)
    options = Options(quant=REFERENCE, resident=True, kv="f32", threads=1)
    reported = progress or Progress(quiet=True)
    evaluation = Evaluation(Bundle(bundle), REFERENCE, names, options, None, None, reported)
    measured = {entry.name: entry for entry in evaluation.run(samples)[0]}
    for kind in types:
        for positions in POSITIONS:
            found = {name: mean(measured[f"{kind}-{name}"], positions) for name in MATRICES}
            yield Comparison(kind, positions, len(measured[names[0]].questions), found)


def collect(checkpoint: Path, folder: Path, rooms: ReaDataset) -> dict[str, Path]:
    """Matrices of whole prompts about rooms, and of their questions and answers as text; files by name."""
    text = folder / "text.txt"
    text.write_text("\n".join(f"{sample.question}\n{sample.answer}" for sample in rooms.samples), encoding="utf-8")
    sources: dict[str, TextFile | Samples] = {
        TEXT: TextFile(text, PIECE),
        WHOLE: Samples(rooms, Subset(COLLECTED), DEFAULTS),
    }
    for name, source in sources.items():
        calibration = Calibration(*opened(checkpoint, None), source, parse_weights([]), False, Progress(quiet=True))
        make_matrix(calibration, folder / f"{name}.gguf")
    return {name: folder / f"{name}.gguf" for name in sources}


def mean(measured: Measured, positions: str) -> Interval:
    """Mean divergence at positions of a kind, in which each prompt counts as one."""
    wanted = [place for place, name in enumerate(CLASSES) if name in POSITIONS[positions]]
    values = [
        [float(question.divergence[np.isin(classes, wanted)].mean())]
        for question, classes in zip(measured.questions, measured.classes, strict=True)
    ]
    return bootstrap(values, np.mean)


def write_rooms(folder: Path, count: int, seed: int) -> ReaDataset:
    """Rooms with one clip each, all for validation."""
    write_synth(folder, World(count, seed, clips=1, questions=1, val_share=1.0), processes=1)
    return ReaDataset(folder / "val.json", folder)


def main() -> None:
    """Print a table whose bold figures have intervals below those of all others in their line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="new; gets the checkpoint, rooms, matrices and the bundle")
    parser.add_argument("--ckpt", type=Path, help="made loud in place of random weights")
    parser.add_argument("--louder", type=float, default=LOUDER, help="how many times; 1 for no loud channels")
    parser.add_argument("--prompts", type=int, default=40, help="rooms that are held out, one question each")
    parser.add_argument("--seed", type=int, default=0, help="of random weights, and of the choice of channels")
    values = parser.parse_args()
    try:
        make_new_folder(values.folder)
        checkpoint = values.folder / "checkpoint"
        write_loud(checkpoint, values.ckpt, louder=values.louder, seed=values.seed)
        print(f"| {' | '.join(['type', 'positions', *MATRICES.values()])} |\n{'| --- ' * 5}|")
        for comparison in compare(checkpoint, values.folder, prompts=values.prompts, progress=Progress()):
            print(comparison, flush=True)
    except StllmError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
