"""Language models of a bundle against a reference on the questions of a data set."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from ...export.checkpoint.checkpoint import Checkpoint
from ...runtime.answer import View
from ...runtime.bundle.manifest import Bundle
from ...runtime.console import Progress
from ...runtime.errors import BadBundle, BadInput, DoesNotFit, StllmError
from ...runtime.options import Options
from ...runtime.session import Session
from ..rea.dataset import Broken, Sample, by_clip
from ..rea.prompts import answer_ids
from ..scoring.metrics import Estimate, wilson
from .metrics import Positions, Summary, compare
from .models import Libllama, Model, Piece, PyTorch

__all__ = ["CLASSES", "PYTORCH", "Evaluation", "Measured", "Question"]

LOG = logging.getLogger(__name__)
PYTORCH = "checkpoint"
# of a position: where it stands
CLASSES = ("before", "video", "after", "answer")


@dataclass(frozen=True)
class Question:
    """A question with its annotated answer.

    Attributes:
        pieces: of the prompt, and the answer but for its last token.
        true: the next token of each position [n], -1 where it is none of text.
        classes: of each position [n], places in `CLASSES`.
    """

    pieces: tuple[Piece, ...]
    true: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.true)


@dataclass
class Measured:
    """One language model.

    Attributes:
        name: as the bundle holds it.
        type: of its file.
        size: bytes of its file.
        questions: positions of each.
        clips: of each, which clip it is about.
        classes: of each, classes of its positions.
    """

    name: str
    type: str
    size: int
    questions: list[Positions] = field(default_factory=list)
    clips: list[int] = field(default_factory=list)
    classes: list[np.ndarray] = field(default_factory=list)

    def summary(self, kind: str) -> Summary | None:
        """Of the positions of a class, or of `all`; None where there are none."""
        masks = [np.full(len(c), True) if kind == "all" else c == CLASSES.index(kind) for c in self.classes]
        chosen = [(q.where(mask), clip) for q, mask, clip in zip(self.questions, masks, self.clips, strict=True)]
        chosen = [(positions, clip) for positions, clip in chosen if len(positions)]
        return Summary.of([p for p, _ in chosen], [clip for _, clip in chosen]) if chosen else None

    @property
    def right(self) -> list[bool]:
        """Whether each answer, with the best token each time, is the annotated one, to its end."""
        answer = CLASSES.index("answer")
        return [bool(q.right[c == answer].all()) for q, c in zip(self.questions, self.classes, strict=True)]

    def answers(self) -> Estimate:
        """Share of exact answers and its 95 % interval."""
        return wilson(sum(self.right), len(self.right))


@dataclass(frozen=True)
class Evaluation:
    """What is compared.

    Attributes:
        bundle: opened.
        reference: a language model of it, or `PYTORCH`.
        quants: language models.
        options: of the session that runs the encoders.
        checkpoint: for `PYTORCH`.
        frames: frames to sample; None takes the bundle's number.
        progress: where to report.
    """

    bundle: Bundle
    reference: str
    quants: tuple[str, ...]
    options: Options
    checkpoint: Checkpoint | None
    frames: int | None
    progress: Progress

    def __post_init__(self) -> None:
        for name in (*self.quants, *([] if self.reference == PYTORCH else [self.reference])):
            self.bundle.llm(name)
        if (self.reference == PYTORCH) != (self.checkpoint is not None):
            raise BadInput(f"--reference {PYTORCH} and --ckpt DIR go together; give both or neither")
        if self.checkpoint is not None and not self.bundle.is_of(self.checkpoint.digest()):
            raise BadBundle(f"{self.bundle.path}: was made from another checkpoint than {self.checkpoint.path}")

    def run(self, samples: Sequence[Sample]) -> tuple[list[Measured], list[Broken]]:
        """Compare on all samples that can be used.

        Raises:
            StllmError: the reference is not the same as itself.
            BadInput: no sample can be used.
        """
        measured = [self._described(name) for name in self.quants]
        broken: list[Broken] = []
        with ExitStack() as stack, self.progress.bar("questions", len(samples)) as advance:
            session = stack.enter_context(Session(self.bundle, self.options))
            models: dict[str, Model] = {}
            for clip, group in enumerate(by_clip(samples)):
                for question in self._questions(session, group, broken):
                    if not models:
                        self._control(session, question)
                        models |= self._open(session, stack, len(question))
                    self._compare(models, question, measured, clip)
                advance(len(group))
        if not measured[0].questions:
            raise BadInput(f"none of {len(samples)} samples can be used: {broken[0].reason}")
        return measured, broken

    def _described(self, name: str) -> Measured:
        llm = self.bundle.llm(name)
        return Measured(name, llm.type or name, self.bundle.size(llm.file))

    def _open(self, session: Session, stack: ExitStack, positions: int) -> dict[str, Model]:
        """All models, the reference first."""
        opened: dict[str, Model] = {self.reference: self._model(session, self.reference, positions)}
        opened |= {name: self._model(session, name, positions) for name in self.quants if name not in opened}
        for model in opened.values():
            stack.callback(model.close)
        return opened

    def _model(self, session: Session, name: str, positions: int) -> Model:
        if name == PYTORCH:
            assert self.checkpoint is not None
            return PyTorch(self.checkpoint)
        return Libllama(replace(session.setup, quant=name), positions)

    def _control(self, session: Session, question: Question) -> None:
        """The reference against itself, loaded twice: zero, or all that follows means nothing."""
        with ExitStack() as stack:
            first, second = (self._model(session, self.reference, len(question)) for _ in range(2))
            stack.callback(first.close)
            stack.callback(second.close)
            pairs = zip(first.logits(question.pieces), second.logits(question.pieces), strict=True)
            worst = max(float(np.abs(compare(a, b, np.full(len(a), -1)).divergence).max()) for a, b in pairs)
        LOG.info("null control: %s against itself, largest KL divergence %g", self.reference, worst)
        if worst:
            raise StllmError(
                f"{self.reference} against itself has a KL divergence of {worst:.2g}, not 0: this machine computes "
                "differently from run to run; try --threads 1"
            )

    def _questions(self, session: Session, group: Sequence[Sample], broken: list[Broken]) -> Iterator[Question]:
        """The questions about one clip, which is looked at once."""
        try:
            view = session.look(*group[0].load(), frames=self.frames)
            for sample in group:
                yield question_of(session, view, sample)
        except (BadInput, DoesNotFit, OSError) as error:
            LOG.warning("skipped %s: %s", group[0].id, error)
            broken += [Broken(sample.id, str(error)) for sample in group]

    def _compare(self, models: dict[str, Model], question: Question, measured: list[Measured], clip: int) -> None:
        """One question through all models at once, so that no logits need to be kept."""
        parts: dict[str, list[Positions]] = {name: [] for name in self.quants}
        true = iter(question.true)
        for step in zip(*(model.logits(question.pieces) for model in models.values()), strict=True):
            found = dict(zip(models, step, strict=True))
            expected = np.fromiter(islice(true, len(step[0])), np.int64)
            for name in self.quants:
                parts[name].append(compare(found[name], found[self.reference], expected))
        for entry in measured:
            entry.questions.append(Positions.joined(parts[entry.name]))
            entry.clips.append(clip)
            entry.classes.append(question.classes)


def question_of(session: Session, view: View, sample: Sample) -> Question:
    """A sample as all models get it: prefix and video from the bundle's encoders, tokens from each model's own rows."""
    stages = session.stages
    prompt = session.prompt(view, sample.question)
    rays = view.encoded_rays or stages.host.encode_rays(view.rays)
    prefix = stages.aligner(view.points, rays, view.pooled_features, stages.embed(prompt.aligner_token_ids))
    video = view.video_tokens.reshape(-1, view.video_tokens.shape[-1])
    answer = answer_ids(sample, stages.speaker.vocabulary)
    tail = np.array([*prompt.tail, *answer[:-1]], np.int64)
    pieces = (
        Piece(ids=np.array(prompt.head, np.int64)),
        Piece(embeddings=prefix),
        Piece(ids=np.array(prompt.between, np.int64)),
        Piece(embeddings=video),
        Piece(ids=tail),
    )
    unknown = np.full(len(prefix), -1), np.full(len(video), -1)
    tokens = np.concatenate([prompt.head, unknown[0], prompt.between, unknown[1], tail, answer[-1:]]).astype(np.int64)
    begin, end = len(tokens) - 1 - len(tail) - len(video), len(tokens) - 1 - len(tail)
    classes = np.zeros(len(tokens) - 1, np.uint8)
    classes[begin:end], classes[end:] = CLASSES.index("video"), CLASSES.index("after")
    classes[-len(answer) :] = CLASSES.index("answer")
    return Question(pieces, tokens[1:], classes)
