"""Samples as whole prompts of the language model with their annotated answers, by the PyTorch model."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...calib.importance.collector import Collector, combined
from ...calib.importance.prompts import CLASSES, Prompt, PromptStore
from ...export.checkpoint.checkpoint import Checkpoint
from ...export.checkpoint.geometry import Inventory, take_inventory
from ...export.gguf.writer import vocabulary_of
from ...export.material import Material
from ...export.model.reference import Reference
from ...runtime.bundle.manifest import Defaults
from ...runtime.console import Progress
from ...runtime.errors import BadInput, require_at_least
from ...runtime.llm.prompt import build_prompt
from ...runtime.llm.vocabulary import Vocabulary
from .dataset import ReaDataset, Sample, by_clip
from .subset import Subset

__all__ = ["Calibration", "Samples", "TextFile", "answer_ids", "make_matrix"]

TURN_END = "<|im_end|>\n"
TEXT, PREFIX, VIDEO = range(len(CLASSES))
MOST_SAMPLES = 64
CHUNK, LEAST_CHUNK = 512, 16


@dataclass(frozen=True)
class Samples:
    """Prompts of a data set.

    Attributes:
        dataset: the data set.
        subset: which samples; None takes `MOST_SAMPLES` at random.
        defaults: size of a voxel, frames, and whether the prompt states the clip's times.
    """

    dataset: ReaDataset
    subset: Subset | None
    defaults: Defaults

    def chosen(self) -> list[Sample]:
        """The samples; raises BadInput as `Subset.of`."""
        subset = self.subset or Subset(f"random:{min(MOST_SAMPLES, len(self.dataset.samples))}")
        return subset.of(self.dataset.samples)

    def header(self) -> dict[str, Any]:
        """What tells these prompts from others."""
        return {"rea": self.dataset.digest, "ids": [sample.id for sample in self.chosen()], **vars(self.defaults)}

    @property
    def name(self) -> str:
        return self.dataset.file.name

    def count(self) -> int:
        return len(self.chosen())

    def prompts(self, reference: Reference, vocabulary: Vocabulary, done: Collection[str]) -> Iterator[Prompt]:
        """Prompts that are not done, clip by clip; each clip goes through the towers once."""
        rest = [sample for sample in self.chosen() if sample.id not in done]
        for group in by_clip(rest):
            material = Material.read(reference.inventory.geometry.vision, self.defaults, *group[0].load())
            points = reference.points(material.voxels)
            frames = len(material.selection)
            video = reference.vision(material.host.frames(material.selection), frames)
            pooled = video[:, :, :-1].reshape(frames, -1, video.shape[-1])
            for sample in group:
                prompt = build_prompt(sample.question, vocabulary.tokenize, timing=material.timing)
                text = reference.embed(prompt.aligner_token_ids)
                prefix = reference.aligner(points, material.rays, pooled, text)
                parts = [
                    (reference.embed(prompt.head), TEXT),
                    (prefix, PREFIX),
                    (reference.embed(prompt.between), TEXT),
                    (video.reshape(-1, video.shape[-1]), VIDEO),
                    (reference.embed([*prompt.tail, *answer_ids(sample, vocabulary)]), TEXT),
                ]
                kinds = np.concatenate([np.full(len(rows), kind, np.uint8) for rows, kind in parts])
                yield Prompt(sample.id, np.concatenate([rows for rows, _ in parts]), kinds)


@dataclass(frozen=True)
class TextFile:
    """Prompts of text alone: a file cut into pieces of so many tokens, as llama.cpp's collector does it.

    Attributes:
        file: UTF-8 text.
        chunk: tokens of a piece; what is left over is not used.
    """

    file: Path
    chunk: int = CHUNK

    @property
    def name(self) -> str:
        return self.file.name

    def header(self) -> dict[str, Any]:
        """What tells these prompts from others."""
        return {"text": self._text(), "chunk": self.chunk}

    def _text(self) -> str:
        try:
            return self.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"--text {self.file}: cannot be read as UTF-8 text ({error})") from None

    def prompts(self, reference: Reference, vocabulary: Vocabulary, done: Collection[str]) -> Iterator[Prompt]:
        """Pieces that are not done."""
        require_at_least({"--chunk": (self.chunk, LEAST_CHUNK)})
        ids = vocabulary.tokenize(self._text())
        if len(ids) < self.chunk:
            raise BadInput(f"--text {self.file}: has {len(ids)} tokens, expected at least --chunk {self.chunk}")
        for place in range(len(ids) // self.chunk):
            if str(place) not in done:
                rows = reference.embed(ids[place * self.chunk : (place + 1) * self.chunk])
                yield Prompt(str(place), rows, np.full(len(rows), TEXT, np.uint8))


@dataclass(frozen=True)
class Calibration:
    """What a matrix is made for.

    Attributes:
        checkpoint: opened.
        inventory: its names and sizes.
        source: prompts.
        weights: how often each class of positions counts, by name.
        output: whether the output matrix gets a row.
        progress: where to report.
    """

    checkpoint: Checkpoint
    inventory: Inventory
    source: Samples | TextFile
    weights: dict[str, float]
    output: bool
    progress: Progress


def make_matrix(calibration: Calibration, out: Path) -> PromptStore:
    """Collect an importance matrix; run again, it goes on where it stopped.

    Beside `out` lies a folder of prompts and layers that are done, which is removed at the end.

    Args:
        calibration: of what.
        out: GGUF file.

    Returns:
        The prompts, whose folder is gone.

    Raises:
        BadInput: a sample cannot be read, there are none, or values are not finite.
    """
    source, checkpoint = calibration.source, calibration.checkpoint
    width = calibration.inventory.geometry.llm.width
    header = {"checkpoint": checkpoint.digest(), **source.header()}
    store = PromptStore(out.with_name(f"{out.name}.work"), width, header)
    quiet = Progress(quiet=True)
    reference = Reference(checkpoint, calibration.inventory, quiet)
    total = source.count() if isinstance(source, Samples) else 0
    with (
        vocabulary_of(checkpoint, calibration.inventory) as vocabulary,
        calibration.progress.bar("prompts", total) as advance,
    ):
        advance(len(store))
        try:
            for prompt in source.prompts(reference, vocabulary, store.names):
                store.append(prompt)
                advance(1)
        except BadInput:
            # nothing to go on with, and in the way of what is asked next
            if not len(store):
                store.remove()
            raise
    require_counted(store, calibration.weights)
    sums = Collector(checkpoint, calibration.inventory, store, calibration.output, calibration.progress).run()
    described = {"datasets": (source.name,), "chunks": len(store), "chunk_size": store.longest}
    combined(sums, calibration.weights, described, out)
    store.remove()
    return store


def require_counted(store: PromptStore, weights: Mapping[str, float]) -> None:
    """Raise BadInput where weights leave none of the positions that there are."""
    there = {CLASSES[kind] for kinds in store.classes() for kind in np.unique(kinds)}
    if not any(weights[name] for name in there):
        raise BadInput(
            f"--weight: counts none of the positions, all of {', '.join(sorted(there))}; give one more than 0"
        )


def answer_ids(sample: Sample, vocabulary: Vocabulary) -> list[int]:
    """The annotated answer as the model is to say it, with the token that ends a turn."""
    return [*vocabulary.tokenize(sample.answer, special=False), *vocabulary.tokenize(TURN_END)[:1]]


def opened(path: Path, base: Path | None) -> tuple[Checkpoint, Inventory]:
    """A checkpoint and its inventory, complete; raises BadInput where it is not."""
    checkpoint = Checkpoint(path, base)
    inventory = take_inventory(checkpoint)
    inventory.require_complete(checkpoint.path)
    return checkpoint, inventory


def parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """CLASS=NUMBER texts; those that are not named count once. Raises BadInput for what is neither."""
    weights = dict.fromkeys(CLASSES, 1.0)
    for text in texts:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in CLASSES or not 0 <= value < float("inf"):
            raise BadInput(f"--weight {text}: expected CLASS=NUMBER, where the class is one of {', '.join(CLASSES)}")
        weights[name] = value
    if not any(weights.values()):
        raise BadInput("--weight: all classes count 0 times; give one of them more")
    return weights
