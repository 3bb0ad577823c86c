"""What a question costs when only a part of it is new, and whether a session stays as it is over many of them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from ..export.comparison import log_probabilities
from ..runtime.answer import Answer, View
from ..runtime.errors import BadInput
from ..runtime.inputs.clip import Clip
from ..runtime.inputs.scene import Scene
from ..runtime.llm.sampling import Sampling
from ..runtime.memory.counters import own_usage
from ..runtime.options import APPROXIMATE, Options
from ..runtime.session import Session
from .rea.dataset import ReaDataset, by_clip

__all__ = ["Row", "Soak", "Traded", "approximate", "measure", "soak"]

QUESTIONS = ("Where is the table?", "How far away is the chair?", "Which way is the door?")
LANGUAGE = ("prefill", "decode", "sampling")
ALIGNED = ("aligner", *LANGUAGE)
# of the soak: scenes and clips that take turns, and questions before memory is looked at
PLACES, WARM, CHECKED = 20, 0.3, 3
SOAK_CACHE = 4 * 10**6
# of the video that is read again, of approximate reuse
RECOMPUTED = (0.0, 0.05, 0.15, 0.3)


@dataclass(frozen=True)
class Row:
    """One claim.

    Attributes:
        what: in words.
        bound: most that the ratio may be.
        ratio: median over the runs.
        ratios: of each run.
    """

    what: str
    bound: float
    ratio: float
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Soak:
    """Many questions in one process.

    Attributes:
        questions: how many.
        growth: of anonymous memory from the end of the warm-up to the end, as a share.
        handles: open files more at the end than after the warm-up.
        threads: threads more.
        equal: whether the answers that were asked again in fresh processes are the same.
    """

    questions: int
    growth: float
    handles: int
    threads: int
    equal: bool


@dataclass(frozen=True)
class Traded:
    """What approximate reuse of the video gives and costs, over second and later questions about a clip.

    Attributes:
        recompute: share of the video's positions that is read again.
        questions: how many.
        prefill: time of prefill over that of reading all again, median.
        answer: the same of the whole answer, aligner and decode included.
        divergence: KL divergence from reading all again, nats: mean over an answer's tokens, median over the questions.
        divergence_first: the same where as many of the video's first positions are read again, and not those that
            change most.
        closer: share of the questions whose divergence is less than with the first positions.
        changed: share of the answers that are others.
        right: share that is the truth; and of those that read all again.
        right_exact: see above.
    """

    recompute: float
    questions: int
    prefill: float
    answer: float
    divergence: float
    divergence_first: float
    closer: float
    changed: float
    right: float
    right_exact: float


def approximate(bundle: Path, dataset: ReaDataset, options: Options, *, new_tokens: int) -> list[Traded]:
    """A row for each share that is read again: questions are asked with and without reuse, in turns.

    Raises:
        BadInput: no clip of the data set has a second question.
    """
    options = replace(options, resident=True)
    found: dict[float, list[tuple[float, ...]]] = {share: [] for share in RECOMPUTED}
    with ExitStack() as stack:
        exact = stack.enter_context(Session(bundle, options))
        sessions, others = (
            {
                share: stack.enter_context(Session(bundle, replace(options, reuse_video=APPROXIMATE, recompute=share)))
                for share in RECOMPUTED
            }
            for _ in range(2)
        )
        for session in others.values():
            assert session.asker.revisit is not None
            session.asker.revisit.choose = lambda change, count: [(0, count)]
        for samples in by_clip(dataset.samples):
            if len(samples) < 2:
                continue
            view = exact.look(*samples[0].load(), max_new_tokens=new_tokens)
            view = replace(view, points=view.pcd_features)
            for session in (exact, *sessions.values(), *others.values()):
                read(session.answer(view.again(), samples[0].question, max_new_tokens=new_tokens))
            for number, sample in enumerate(samples[1:]):
                ask = partial(timed, view=view, question=sample.question, new_tokens=new_tokens)
                turns = list(sessions) if number % 2 else list(reversed(sessions))
                for share in turns:
                    theirs, mine, first = ask(exact), ask(sessions[share]), ask(others[share])
                    ratios = (mine.prefill / theirs.prefill, mine.whole / theirs.whole)
                    ours, theirs_first = (divergence(theirs, one) for one in (mine, first))
                    right = (one.text == sample.answer for one in (mine, theirs))
                    found[share].append(
                        (*ratios, ours, theirs_first, ours < theirs_first, mine.text != theirs.text, *right)
                    )
    if not any(found.values()):
        raise BadInput(f"--rea {dataset.file}: no clip has a second question")
    return [
        Traded(share, len(rows), *map(median, columns[:4]), *map(mean, columns[4:]))
        for share, rows in found.items()
        for columns in [list(zip(*rows, strict=True))]
    ]


class Timed(NamedTuple):
    """Milliseconds of prefill, seconds of the whole answer, its text and ids, and the logits [vocabulary] of each."""

    prefill: float
    whole: float
    text: str
    ids: list[int]
    logits: list[np.ndarray]


def divergence(exact: Timed, other: Timed) -> float:
    """KL divergence of the tokens up to the first that differs, nats, mean."""
    pairs = enumerate(zip(exact.ids, other.ids, strict=False))
    count = next((place + 1 for place, (ours, theirs) in pairs if ours != theirs), min(len(exact.ids), len(other.ids)))
    ours, theirs = (log_probabilities(np.stack(one.logits[:count])) for one in (exact, other))
    return float((np.exp(ours) * (ours - theirs)).sum(axis=1).mean())


def timed(session: Session, view: View, question: str, new_tokens: int) -> Timed:
    """A question asked and answered."""
    seen: list[np.ndarray] = []
    sampler = session.stages.sampler

    def watched(sampling: Sampling) -> Callable[[np.ndarray], int]:
        choose = sampler(sampling)

        def chosen(logits: np.ndarray) -> int:
            seen.append(logits)
            return choose(logits)

        return chosen

    with patch.object(session.stages, "sampler", watched):
        begin = time.perf_counter()
        answer = read(session.answer(view.again(), question, max_new_tokens=new_tokens))
        spent = time.perf_counter() - begin
    return Timed(answer.meter.milliseconds["prefill"], spent, answer.text.strip(), answer.token_ids, seen)


def measure(
    bundle: Path, scene: Scene, clip: Clip, options: Options, *, new_tokens: int, runs: int, frames: int | None = None
) -> list[Row]:
    """Each claim's ratio of the time that passes to the time of the stages that are left.

    `frames` are sampled of the clip, None takes the bundle's number.
    """
    options = replace(options, resident=True)
    how: dict[str, Any] = {"max_new_tokens": new_tokens}
    looking = {"frames": frames, **how}
    found: dict[tuple[str, float], list[float]] = {}
    with TemporaryDirectory() as folder, Session(bundle, options) as session:
        view = session.look(scene, clip, **looking)
        read(session.answer(view, QUESTIONS[0], **how))
        disk = replace(options, cache=Path(folder) / "features")
        with Session(bundle, disk) as first:
            first.look(scene, clip, **looking)
        for run in range(runs):
            question, count = QUESTIONS[run % len(QUESTIONS)], len(view.selection)
            again = partial(session.answer, view.again(), question, **how)
            by_content = partial(session.ask, scene, clip, question, **looking)
            steps: dict[tuple[str, float], Callable[[], float]] = {
                ("second question, one process", 1.03): partial(against, again, ALIGNED),
                ("second question by content, one process", 1.03): partial(against, by_content, ALIGNED),
                ("second question, warm disk cache", 1.03): partial(from_disk, bundle, disk, scene, clip, looking),
                ("one new frame", 1.2): partial(new_frame, session, scene, clip, count, run),
                ("follow-up", 1.1): partial(follow_up, session, view, how),
                ("live view, time to first token", 1.03): partial(live, session, scene, clip, count, how),
            }
            for key, step in steps.items():
                found.setdefault(key, []).append(step())
    return [Row(what, bound, median(ratios), tuple(ratios)) for (what, bound), ratios in found.items()]


def read(answer: Answer) -> Answer:
    """An answer, read to its end."""
    with answer:
        for _ in answer:
            pass
    return answer


def share(spent: float, answer: Answer, stages: tuple[str, ...]) -> float:
    """Seconds that passed, loading aside, over those of some stages."""
    milliseconds = answer.meter.milliseconds
    loads = sum(milliseconds.get(f"load_{name}", 0.0) for name in ("vision", "points", "aligner", "llm"))
    return (spent * 1e3 - loads) / sum(milliseconds.get(stage, 0.0) for stage in stages)


def against(ask: Callable[[], Answer], stages: tuple[str, ...]) -> float:
    begin = time.perf_counter()
    answer = read(ask())
    return share(time.perf_counter() - begin, answer, stages)


def from_disk(bundle: Path, options: Options, scene: Scene, clip: Clip, how: dict[str, Any]) -> float:
    """Of a session that was opened anew, whose vocabulary is loaded before the clock runs."""
    with Session(bundle, options) as session:
        _ = session.stages.speaker.vocabulary
        return against(lambda: session.ask(scene, clip, QUESTIONS[1], **how), ALIGNED)


def new_frame(session: Session, scene: Scene, clip: Clip, count: int, run: int) -> float:
    """Vision of a clip of which one frame is new, over that of one new frame by itself."""
    poses = clip.frames.posed(scene.poses)
    place = sorted(poses)[0]
    (frame,) = clip.read([place])
    known = [np.roll(frame, shift, axis=1) for shift in range(count)]
    marked = [frame.copy() for _ in range(2)]
    for number, one in enumerate(marked):
        one[0, 0] = (run, number, 7)

    def vision(frames: list[np.ndarray]) -> float:
        posed = Clip.of(frames, poses=[poses[place]] * len(frames), fps=10)
        return session.look(scene, posed, frames=len(frames)).meter.milliseconds.get("vision", 0.0)

    vision(known)
    return vision([*known[1:], marked[0]]) / vision([marked[1]])


def follow_up(session: Session, view: View, how: dict[str, Any]) -> float:
    with session.converse(view) as talk:
        read(talk.ask(QUESTIONS[0], **how))
        return against(lambda: talk.ask(QUESTIONS[1], **how), LANGUAGE)


def live(session: Session, scene: Scene, clip: Clip, count: int, how: dict[str, Any]) -> float:
    """Of a view that was fed all frames before the question."""
    poses = clip.frames.posed(scene.poses)
    places = sorted(poses)[-count:]
    with session.watch(scene, frames=len(places), backlog=count, **how) as view:
        for place, frame in zip(places, clip.read(places), strict=True):
            view.add(frame, poses[place])
        view.settle()
        begin = time.perf_counter()
        answer = view.ask(QUESTIONS[1], time_instruction=False, **how)
        next(iter(answer), None)
        spent = time.perf_counter() - begin
        with answer:
            # tokens before the first that is text, as parts of a character are
            return share(spent, answer, ALIGNED)


def soak(bundle: Path, options: Options, count: int) -> Soak:
    """Questions about scenes and clips that change, in one process with a small cache."""
    options = replace(options, resident=True, cache_memory=SOAK_CACHE)
    kept: dict[int, str] = {}
    with Session(bundle, options) as session:
        for number in range(count):
            text = answer_of(session, number)
            if number % (count // CHECKED) == count // CHECKED - 1:
                kept[number] = text
            if number == int(count * WARM):
                before, handles, threads = held()
        after, more_handles, more_threads = held()
    fresh = {number: in_fresh_process(bundle, options, number) for number in kept}
    return Soak(count, after / before - 1, more_handles - handles, more_threads - threads, fresh == kept)


def answer_of(session: Session, number: int) -> str:
    """The answer to one of the soak's questions."""
    scene, clip = place_of(number % PLACES)
    return "".join(session.ask(scene, clip, QUESTIONS[number % 3], frames=2, max_new_tokens=8, time_instruction=False))


def place_of(number: int) -> tuple[Scene, Clip]:
    """A cloud and a clip of noise, of sizes that differ."""
    draw = np.random.default_rng(number)
    points = draw.uniform((-2, -2, 1), (2, 2, 5), (300 + 40 * number, 3))
    colours = draw.integers(0, 256, points.shape, np.uint8)
    frames = [draw.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(3)]
    scene = Scene.of(points, colours, [[60, 0, 32], [0, 60, 24], [0, 0, 1]])
    return scene, Clip.of(frames, poses=[np.eye(4)] * 3, fps=10)


def held() -> tuple[int, int, int]:
    """Anonymous bytes, open files and threads of this process."""
    return own_usage().anonymous, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208


PROGRAM = f"import sys; from {__name__} import answer_alone; answer_alone(*sys.argv[1:])"


def in_fresh_process(bundle: Path, options: Options, number: int) -> str:
    """The same answer from a process that was asked nothing before."""
    choice = [str(options.quant or ""), str(options.threads or 0), str(number)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(bundle), *choice], capture_output=True, text=True, check=True
    )
    return done.stdout


def answer_alone(bundle: str, quant: str, threads: str, number: str) -> None:
    """Print the answer to one of the soak's questions."""
    options = Options(quant=quant or None, threads=int(threads) or None, resident=True)
    with Session(bundle, options) as session:
        sys.stdout.write(answer_of(session, int(number)))


def report(rows: list[Row], soaked: Soak | None, traded: list[Traded]) -> dict[str, object]:
    """As JSON takes it."""
    return {
        "rows": [asdict(row) for row in rows],
        "soak": asdict(soaked) if soaked else None,
        "approximate": [asdict(row) for row in traded],
    }


def table(rows: list[Row], soaked: Soak | None, traded: list[Traded]) -> str:
    """As a terminal shows it."""
    lines = [f"{row.what:<46}{row.ratio:>8.3f}   at most {row.bound}" for row in rows]
    if soaked is not None:
        lines.append(
            f"{soaked.questions} questions: memory {soaked.growth:+.1%}, {soaked.handles:+d} open files, "
            f"{soaked.threads:+d} threads, answers {'equal' if soaked.equal else 'not equal'} to fresh processes"
        )
    lines += [
        f"--reuse-video approximate --recompute {row.recompute:.0%}: {row.questions} further questions, prefill "
        f"{row.prefill:.3f} x, answer {row.answer:.3f} x, {row.changed:.1%} changed, {row.right:.1%} right "
        f"({row.right_exact:.1%} without), KL {row.divergence:.2e} ({row.divergence_first:.2e} by first positions, "
        f"closer in {row.closer:.0%})"
        for row in traded
    ]
    return "\n".join(lines)


@contextmanager
def quiet_clips() -> Iterator[None]:
    """Nothing is said of clips of noise."""
    import logging

    logger = logging.getLogger("stllm_edge")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
