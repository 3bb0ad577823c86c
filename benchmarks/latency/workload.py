"""Workloads: a named list of questions with a fixed number of frames and tokens, told from others by a digest."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...runtime.bundle.digests import file_digest
from ...runtime.errors import BadInput, require_at_least
from ...runtime.llm.prompt import check_question
from ...runtime.options import Recording
from ..rea.dataset import ReaDataset, by_clip
from ..rea.subset import Subset
from .question import Question

__all__ = ["OTHER", "Workload", "of_recording", "of_subset"]

# what is asked about a scene and a clip whose workload holds one question about them
OTHER = "What can be seen in front of the person?"


@dataclass(frozen=True)
class Workload:
    """What is measured; two runs compare where the digests are equal.

    Attributes:
        name: in words.
        questions: at least one.
        frames: that are sampled; None until a bundle says its number.
        new_tokens: of each answer.
        inputs: digest of the files behind the questions.
    """

    name: str
    questions: tuple[Question, ...]
    frames: int | None
    new_tokens: int
    inputs: str

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides what is computed, on any device and under any path."""
        asked = [[question.id, question.text, question.other] for question in self.questions]
        whole = json.dumps([self.inputs, self.frames, self.new_tokens, asked])
        return hashlib.sha256(whole.encode()).hexdigest()

    def settled(self, defaults: Sequence[int]) -> "Workload":
        """With the number of frames of the bundles that are measured; raises BadInput where they differ."""
        if self.frames is None and len(set(defaults)) > 1:
            told = " and ".join(map(str, defaults))
            raise BadInput(f"the bundles sample {told} frames by default; give --frames for both")
        frames = self.frames if self.frames is not None else defaults[0]
        return replace(self, frames=frames, name=f"{self.name}, {frames} frames, {self.new_tokens} tokens")


def of_subset(dataset: ReaDataset, subset: Subset, *, frames: int | None, new_tokens: int) -> Workload:
    """Samples of the REA data set; raises BadInput where the subset selects nothing or a number is out of range."""
    check_numbers(frames, new_tokens)
    questions = []
    for group in by_clip(subset.of(dataset.samples)):
        for place, sample in enumerate(group):
            # the next one about the same clip
            other = group[(place + 1) % len(group)].question
            questions.append(Question(sample.id, sample.question, other if other != sample.question else OTHER, sample))
    chosen = ", ".join([subset.spec, *subset.types, *subset.scenes])
    if subset.spec.startswith("random"):
        chosen += f", seed {subset.seed}"
    name = f"{dataset.file.stem} {chosen}"
    return Workload(name, tuple(questions), frames, new_tokens, f"{dataset.digest} {dataset.fps}")


def of_recording(recording: Recording, asked: Sequence[str], *, frames: int | None, new_tokens: int) -> Workload:
    """Questions about one scene and clip; raises BadInput where one is no question or a number is out of range."""
    check_numbers(frames, new_tokens)
    for text in asked:
        check_question(text)
    if recording.scene is None or recording.video is None or not asked:
        raise BadInput("a workload is --rea and --root, or --scene, --video and --question; give one of both")
    if len(set(asked)) < len(asked):
        raise BadInput("a --question is given twice; its rows would be mixed up")
    others = [*asked[1:], asked[0] if len(asked) > 1 else OTHER]
    questions = [
        Question(f"question-{place}", text, other if other != text else "What is it?", recording)
        for place, (text, other) in enumerate(zip(asked, others, strict=True), start=1)
    ]
    given = asdict(recording).values()
    inputs = [fingerprint(value) if isinstance(value, Path) else value for value in given]
    return Workload(
        f"{recording.scene.name} and {recording.video.name}", tuple(questions), frames, new_tokens, json.dumps(inputs)
    )


def check_numbers(frames: int | None, new_tokens: int) -> None:
    require_at_least({"--frames": (frames, 1), "--max-new-tokens": (new_tokens, 2)})


def fingerprint(path: Path) -> str:
    """What tells a file from others, or a folder by the names and sizes in it, wherever it lies."""
    if path.is_file():
        return file_digest(path)
    if not path.is_dir():
        raise BadInput(f"{path}: is not there; expected a file or a folder of scene and clip")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256(
        json.dumps([[file.relative_to(path).as_posix(), file.stat().st_size] for file in files]).encode()
    ).hexdigest()
