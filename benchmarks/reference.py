"""A bundle beside the PyTorch model run its authors' way: each stage of one question, alternated in one process.

Both sides of a stage get the same arrays. A stage that does not fit beside ours is run on half the frames, and so on;
what does not fit at all is said. Ratios are medians of paired runs.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..export.checkpoint.checkpoint import Checkpoint
from ..export.checkpoint.geometry import take_inventory
from ..export.comparison import relative
from ..export.views import opened
from ..runtime.answer import View
from ..runtime.errors import BadBundle, require_at_least
from ..runtime.inputs.clip import Clip
from ..runtime.inputs.scene import Scene
from ..runtime.inputs.selection import upright
from ..runtime.memory.counters import available, own_usage, reset_peak
from ..runtime.memory.plan import TEXT_TOKENS
from ..runtime.options import Options, Recording
from ..runtime.session import Session
from .authors import Authors, bytes_needed
from .encoders import times_in_turn
from .scoring.metrics import Estimate
from .tuning.front import median_interval

__all__ = ["Question", "Row", "compare_with_authors", "table", "to_json"]

LOG = logging.getLogger(__name__)
Work = Callable[[], np.ndarray]
Load = Callable[[], Work]


@dataclass(frozen=True)
class Row:
    """One stage on both sides.

    Attributes:
        stage: vision, points, aligner, prefill or decode.
        frames: of the clip, as many as fitted; None where none did.
        size: what the stage was run on, in words.
        ratio: ours over theirs, median of the pairs and its 95 % interval; None where theirs did not fit.
        ours_ms: median of ours.
        theirs_ms: median of theirs.
        runs: pairs.
        error: relative root mean square difference of the results.
        predicted_mb: that theirs was predicted to take, weights included.
        peak_mb: anonymous memory that it took.
        note: what did not fit.
    """

    stage: str
    frames: int | None = None
    size: str = ""
    ratio: Estimate | None = None
    ours_ms: float | None = None
    theirs_ms: float | None = None
    runs: int = 0
    error: float | None = None
    predicted_mb: float | None = None
    peak_mb: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Question:
    """What is asked on both sides.

    Attributes:
        text: the question.
        frames: most frames; None for the bundle's number.
        new_tokens: tokens that are decoded, whatever they are.
        runs: pairs of runs of each stage.
    """

    text: str
    frames: int | None = None
    new_tokens: int = 16
    runs: int = 5

    def check(self) -> None:
        """Raise BadInput for a number that cannot be."""
        bounds = {"--frames": self.frames, "--max-new-tokens": self.new_tokens, "--runs": self.runs}
        require_at_least({option: (value, 1) for option, value in bounds.items()})


class Comparison:
    """Both sides of one question; ours is a resident session."""

    def __init__(self, session: Session, checkpoint: Checkpoint, scene: Scene, clip: Clip, question: Question):
        """Load nothing yet.

        Raises:
            BadBundle: the session's bundle is of a model of other sizes than the checkpoint.
            BadInput: the checkpoint is incomplete.
        """
        self.session, self.scene, self.clip, self.question = session, scene, clip, question
        self.inventory = take_inventory(checkpoint)
        self.inventory.require_complete(checkpoint.path)
        if session.bundle.geometry != self.inventory.geometry:
            raise BadBundle(f"{session.bundle.path}: was made from a model of other sizes than {checkpoint.path}")
        if not session.bundle.is_of(checkpoint.digest()):
            LOG.warning("%s is not the checkpoint that %s was made from", checkpoint.path, session.bundle.path)
        self.authors = Authors(checkpoint, self.inventory)
        self._views: dict[int, View] = {}

    def rows(self) -> Iterator[Row]:
        """Each stage as it is measured."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.session.setup.threads)
        try:
            with torch.inference_mode():
                yield self._stage("vision", self._vision)
                yield self._stage("points", self._points)
                yield self._stage("aligner", self._aligner)
                yield from self._llm()
        finally:
            torch.set_num_threads(before)

    @cached_property
    def _voxels(self) -> int:
        return len(self.session.stages.host.voxels(upright(self.scene, self.clip)))

    def _text(self) -> int:
        return TEXT_TOKENS + self.question.new_tokens

    def _fitting(self, part: str) -> tuple[int | None, float, str]:
        """Most frames at which a part of theirs fits beside ours, the bytes it takes, and what did not fit."""
        wanted = self.question.frames or self.session.bundle.defaults.frames
        notes: list[str] = []
        while True:
            needed = bytes_needed(self.inventory.geometry, wanted, self._voxels, self._text())[part]
            ours = self.session.setup.plan(wanted, self._voxels, self.question.new_tokens)
            room = (available() or 0) + self.session.stages.held(ours)
            if needed + ours.peak() <= room:
                return wanted, needed, "; ".join(notes)
            notes.append(
                f"at {wanted} frames it does not fit: theirs needs {needed / 1e9:.1f} GB "
                f"beside {ours.peak() / 1e9:.1f} GB of ours, {room / 1e9:.1f} GB are free"
            )
            if wanted == 1:
                return None, needed, notes[-1]
            wanted //= 2

    def _view(self, frames: int) -> View:
        """Ours of so many frames; one at a time is kept."""
        if frames not in self._views:
            self._views.clear()
            usual = self.question.frames is None and frames == self.session.bundle.defaults.frames
            number = None if usual else frames
            tokens = self.question.new_tokens
            self._views[frames] = self.session.look(self.scene, self.clip, frames=number, max_new_tokens=tokens)
        return self._views[frames]

    def _stage(self, stage: str, sides: Callable[[View], tuple[str, Work, Load]]) -> Row:
        """Run both sides of a stage at the most frames that fit."""
        frames, needed, note = self._fitting(stage)
        predicted = round(needed / 1e6, 1)
        if frames is None:
            return Row(stage, predicted_mb=predicted, note=note)
        size, ours, load = sides(self._view(frames))
        before = own_usage().anonymous
        found = beside(ours, load(), self.question.runs, before)
        return found.row(stage, frames=frames, size=size, predicted_mb=predicted, note=note)

    def _vision(self, view: View) -> tuple[str, Work, Load]:
        frames = list(self.session.stages.host.frames(view.selection))
        stacked = np.stack(frames)

        def load() -> Work:
            run = self.authors.vision()
            return lambda: run(stacked)

        return f"{len(frames)} frames", lambda: self.session.stages.vision(frames, len(frames)), load

    def _points(self, view: View) -> tuple[str, Work, Load]:
        def load() -> Work:
            run = self.authors.points()
            return lambda: run(view.voxels)

        ours = partial(self._mapped_points, view)
        return f"{len(view.voxels)} voxels", ours, load

    def _mapped_points(self, view: View) -> np.ndarray:
        """Point features, with the kernel maps, which theirs builds as well."""
        stages = self.session.stages
        return np.asarray(stages.points(view.voxels, stages.host.maps(view.voxels)))

    def _aligner(self, view: View) -> tuple[str, Work, Load]:
        words = self._words(view)
        pooled, features = view.pooled_features, view.pcd_features

        def load() -> Work:
            run = self.authors.aligner()
            return lambda: run(features, view.rays, pooled, words)

        ours = partial(self._prefix, view, words)
        return f"{len(view.selection)} frames, {len(view.voxels)} voxels", ours, load

    def _words(self, view: View) -> np.ndarray:
        """Embeddings [L, d] float32 of the user turn."""
        prompt = self.session.prompt(view, self.question.text)
        return self.session.stages.embed(prompt.aligner_token_ids)

    def _prefix(self, view: View, words: np.ndarray) -> np.ndarray:
        """Prefix tokens, with the encoding of the rays, which theirs does as well."""
        stages = self.session.stages
        return stages.aligner(view.points, stages.host.encode_rays(view.rays), view.pooled_features, words)

    def _llm(self) -> Iterator[Row]:
        """Prefill, and after it decoding, at a depth that grows alike on both sides."""
        frames, needed, note = self._fitting("llm")
        told: dict[str, Any] = {"predicted_mb": round(needed / 1e6, 1), "note": note}
        if frames is None:
            yield from (Row(stage, **told) for stage in ("prefill", "decode"))
            return
        view = self._view(frames)
        prompt = self.session.prompt(view, self.question.text)
        prefix = self._prefix(view, self._words(view))
        video = view.video_tokens.reshape(-1, view.video_tokens.shape[-1])
        positions = len(prompt) + len(prefix) + len(video)
        tokens, runs = self.question.new_tokens, self.question.runs
        context = positions + (runs + 1) * tokens
        self.session.require_positions(context)
        before = own_usage().anonymous
        with self.session.stages.speaker.load(context) as model:
            theirs = self.authors.llm()
            parts = [theirs.embed(prompt.head), prefix, theirs.embed(prompt.between), video, theirs.embed(prompt.tail)]
            sequence = np.concatenate(parts)

            def prefill() -> np.ndarray:
                model.restart(context)
                return self.session.stages.prefill(model, prompt.segments(prefix, video))

            def decode() -> np.ndarray:
                for token in ids:
                    model.decode_tokens([token])
                    logits = model.logits()
                return logits

            ids = [int(prompt.token_ids[place % len(prompt)]) for place in range(tokens)]
            found = beside(prefill, lambda: theirs.prefill(sequence), runs, before)
            yield found.row("prefill", frames=frames, size=f"{positions} positions", **told)
            found = beside(decode, lambda: [theirs.decode(token) for token in ids][-1], runs, before)
            yield found.row("decode", frames=frames, size=f"{tokens} tokens", **told)


@dataclass(frozen=True)
class Beside:
    """Seconds of both sides, run by run, how the results differ, and anonymous memory that theirs took, bytes."""

    ours: list[float]
    theirs: list[float]
    error: float
    taken: int

    def row(self, stage: str, **more: Any) -> Row:
        ratio = median_interval(np.log(np.array(self.ours) / np.array(self.theirs)))
        return Row(
            stage,
            ratio=Estimate(*(float(np.exp(bound)) for bound in (ratio.value, ratio.low, ratio.high))),
            ours_ms=1e3 * float(np.median(self.ours)),
            theirs_ms=1e3 * float(np.median(self.theirs)),
            runs=len(self.ours),
            error=self.error,
            peak_mb=round(self.taken / 1e6, 1),
            **more,
        )


def beside(ours: Work, theirs: Work, runs: int, before: int) -> Beside:
    """Run both in turn, first one and then the other before, after a run of each that does not count.

    Args:
        ours: one run of ours.
        theirs: one run of theirs.
        runs: pairs.
        before: bytes of anonymous memory without theirs.
    """
    first = ours()
    reset_peak()
    error = relative(first, theirs())
    usage = own_usage()
    # what is mapped from files, as weights that have been copied, the kernel takes back
    taken = max(usage.peak - usage.mapped - before, 0)
    del first
    return Beside(*times_in_turn(ours, theirs, runs), error, taken)


def compare_with_authors(
    bundle: Path, checkpoint: Checkpoint, recording: Recording, question: Question, options: Options
) -> tuple[list[Row], str]:
    """All rows, and what ours is.

    Args:
        bundle: ours.
        checkpoint: theirs.
        recording: scene and clip; by default the built-in sample.
        question: what is asked.
        options: how ours is run; it stays loaded whatever they say.

    Raises:
        BadBundle: the bundle is of a model of other sizes.
        BadInput: the checkpoint, the question or a number is not what it has to be.
        DoesNotFit: ours does not fit.
    """
    question.check()
    with Session(bundle, replace(options, resident=True)) as session:
        setup = session.setup
        ours = f"{setup.precision} encoders, {setup.quant}, {setup.threads} threads, on {setup.placement.name}"
        with opened(recording, session.bundle.defaults.voxel_size) as (scene, clip):
            return list(Comparison(session, checkpoint, scene, clip, question).rows()), ours


def total(rows: Sequence[Row]) -> Row | None:
    """Both sides up to the first token; None unless all stages ran on the same frames."""
    counted = [row for row in rows if row.stage != "decode"]
    if any(row.ours_ms is None for row in counted) or len({row.frames for row in counted}) > 1:
        return None
    ours, theirs = (sum(getattr(row, name) for row in counted) for name in ("ours_ms", "theirs_ms"))
    ratio = Estimate(ours / theirs, np.nan, np.nan)
    return Row("all but decode", counted[0].frames, ratio=ratio, ours_ms=ours, theirs_ms=theirs)


def table(rows: Sequence[Row], ours: str) -> str:
    """A line a stage, and below it what did not fit."""
    whole = total(rows)
    titles = ("stage", "of", "ours, ms", "theirs, ms", "ours/theirs", "rel-rms", "theirs, MB", "predicted, MB")
    lines = [titles, *(cells(row) for row in [*rows, *([whole] if whole else [])])]
    widths = [max(len(line[place]) for line in lines) for place in range(len(titles))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = dict.fromkeys(f"{row.stage}: {row.note}" for row in rows if row.note)
    return "\n".join(
        [*text, *notes, f"ours: {ours}; theirs: PyTorch {torch.__version__}, float32, run its authors' way"]
    )


def cells(row: Row) -> tuple[str, ...]:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else f"{value:{form}}"

    ratio = "-"
    if row.ratio is not None:
        known = np.isfinite(row.ratio.low)
        ratio = f"{row.ratio.value:.3f}" + (f" [{row.ratio.low:.3f}, {row.ratio.high:.3f}]" if known else "")
    memory = (shown(value, ".0f") for value in (row.peak_mb, row.predicted_mb))
    times = (shown(value, ".1f") for value in (row.ours_ms, row.theirs_ms))
    return row.stage, row.size or "-", *times, ratio, shown(row.error, ".1e"), *memory


def to_json(rows: Sequence[Row], ours: str) -> str:
    """All rows as one line of JSON."""
    return json.dumps({"ours": ours, "torch": torch.__version__, "rows": [asdict(row) for row in rows]})
