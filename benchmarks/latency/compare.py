"""Whether a run is slower than another: each stage, question by question, with an interval and a verdict.

The ratio of a stage is the median over questions of the ratio of a question's medians. Its interval comes from drawing
questions and repetitions, each with replacement and apart from each other: a busy moment slows all the questions of a
round, and a long question is long in all its rounds (Owen 2007, "The pigeonhole bootstrap").
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...runtime.errors import BadInput
from .results import FIRST_TOKEN, PHASES, TOKEN, TOTAL, Answer, Run, read_run, read_runs
from .statistics import NOTABLE_DRIFT, limits

__all__ = ["GUARDS", "Change", "Comparison", "compare", "compare_files"]

SLOWER, FASTER, SAME, UNKNOWN = "slower", "faster", "no difference", "cannot tell"
MARGIN = 0.05
RESAMPLES = 1000
# what the verdict of a comparison rests on when no stage stands out
HEADLINE = (TOTAL, FIRST_TOKEN, TOKEN)
# fewer do not bound a median with 95 % confidence: 2 * 0.5 ** 6 < 0.05
LEAST_PAIRS = 6
# below, a clock and a scheduler are what is measured (pyperf warns there)
LEAST_SECONDS = 1e-3
NOISY_SPIN = 0.05
MOST_AT_ONCE = 2_000_000
# what must be the same, the columns that tell, and what it is called
GUARDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "workload": (("workload", "workload_digest"), "another workload"),
    "device": (("device", "board", "cpu", "gpu", "memory_bytes"), "another device"),
    "power-mode": (("power_mode",), "another power mode"),
}
# what tells runs apart and may well be what is compared
SETTINGS = (
    "bundle", "version", "quant", "precision", "kv", "flash_attention", "threads", "gpu_layers", "provider", "resident",
    "governor", "clocks_locked", "jetpack", "driver", "kernel", "python", "verified",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """How the second run does in a stage of a phase.

    Attributes:
        phase: "cold", "warm" or "repeated".
        stage: of the model, or `token` for the time between tokens.
        before: median over questions in the first run, seconds.
        after: the same of the second.
        ratio: median over questions of second to first; above 1 is slower.
        low: lower bound of its 95 % interval, or None where there are too few pairs.
        high: upper bound.
        verdict: "slower", "faster", "no difference" or "cannot tell".
        reason: why it cannot be told, else empty.
        questions: paired.
        repetitions: of a question, in the run with fewer.
    """

    phase: str
    stage: str
    before: float
    after: float
    ratio: float
    low: float | None
    high: float | None
    verdict: str
    reason: str
    questions: int
    repetitions: int


@dataclass(frozen=True)
class Comparison:
    """Two runs, stage by stage.

    Attributes:
        first: name of the run that is compared with.
        second: name of the run that is judged.
        margin: change that still counts as none; 0.05 is 5 %.
        verdict: over all stages: "slower" or "faster" if one is, else whether the headline is the same.
        reasons: why it cannot be told, or what to bear in mind.
        alternated: whether both took turns in one run.
        differences: settings that differ, as `name: first, second`.
        unpaired: questions and phases that only one of the runs has.
        changes: one a phase and stage.
    """

    first: str
    second: str
    margin: float
    verdict: str
    reasons: tuple[str, ...]
    alternated: bool
    differences: tuple[str, ...]
    unpaired: int
    changes: tuple[Change, ...]

    def to_json(self) -> str:
        """The fields as one line of JSON."""
        return json.dumps(asdict(self))


def compare_files(
    paths: Sequence[Path], *, margin: float = MARGIN, across: Collection[str] = (), seed: int = 0
) -> Comparison:
    """Compare two files with a run each, or the two bundles that took turns in one file.

    Args:
        paths: the file of the first run and that of the second, or one for both.
        margin: change that still counts as none, above 0 and below 1.
        across: what may differ all the same: names in `GUARDS`.
        seed: of the bootstrap.

    Raises:
        BadInput: a file cannot be read, does not hold what it has to, or the runs cannot be compared.
    """
    if len(paths) == 1:
        runs = read_runs(paths)
        if len(runs) != 2:
            raise BadInput(f"{paths[0]}: holds {len(runs)} runs; give a second file, or one with two bundles in turn")
        return compare(*runs, margin=margin, across=across, seed=seed)
    first, second = map(read_run, paths)
    return compare(first, second, margin=margin, across=across, seed=seed)


def compare(
    first: Run, second: Run, *, margin: float = MARGIN, across: Collection[str] = (), seed: int = 0
) -> Comparison:
    """Compare two runs, as `compare_files` does.

    Raises:
        BadInput: they are of different workloads, devices or power modes, or have no question in common.
    """
    refuse_strangers(first, second, across)
    alternated = took_turns(first, second)
    pairs, unpaired = paired(first, second)
    phases = [
        Phase(phase, [pair for (other, _), pair in pairs.items() if other == phase], alternated, seed)
        for phase in PHASES
        if any(other == phase for other, _ in pairs)
    ]
    wander = max(phase.wander(TOTAL) for phase in phases)
    changes = tuple(phase.judge(stage, wander, margin) for phase in phases for stage in phase.stages)
    verdict = overall(changes)
    return Comparison(
        first=label(first),
        second=label(second),
        margin=margin,
        verdict=verdict,
        reasons=tuple(reasons(first, second, changes, verdict)),
        alternated=alternated,
        differences=tuple(
            f"{name}: {first.about.get(name)}, {second.about.get(name)}"
            for name in settings(first, second)
            if first.about.get(name) != second.about.get(name)
        ),
        unpaired=unpaired,
        changes=changes,
    )


def took_turns(first: Run, second: Run) -> bool:
    """Whether two bundles alternated in one run, so that rounds can be paired."""
    return first.about["run"] == second.about["run"] and first.about["bundle"] != second.about["bundle"]


def label(run: Run) -> str:
    return f"{run.path.name} ({run.name}, {run.about['quant']}, {run.about['started']})"


def settings(first: Run, second: Run) -> list[str]:
    """Columns that tell runs apart, versions of libraries among them."""
    versions = sorted({name for run in (first, second) for name in run.about if name.startswith("version_")})
    return [*SETTINGS, *versions]


def refuse_strangers(first: Run, second: Run, across: Collection[str]) -> None:
    for guard, (columns, what) in GUARDS.items():
        differing = [name for name in columns if first.about.get(name) != second.about.get(name)]
        if differing and guard not in across:
            ours, theirs = (run.about.get(differing[0]) for run in (first, second))
            raise BadInput(
                f"{second.path}: is of {what} than {first.path} ({differing[0]} {theirs}, not {ours}); "
                f"--across {guard} compares them all the same"
            )


Pair = tuple[list[Answer], list[Answer]]
# answers by phase and question
Asked = dict[tuple[str, str], list[Answer]]


def paired(first: Run, second: Run) -> tuple[dict[tuple[str, str], Pair], int]:
    """Answers of both runs by phase and question, and how many of these only one run has.

    Raises:
        BadInput: no question is in both, or one was other work.
    """
    ours, theirs = grouped(first), grouped(second)
    if took_turns(first, second):
        ours, theirs = same_rounds(ours, theirs), same_rounds(theirs, ours)
    common = {key: (ours[key], theirs[key]) for key in ours if key in theirs}
    if not common:
        raise BadInput(f"{second.path}: has no question in common with {first.path}; compare runs of one workload")
    for (phase, sample), (before, after) in common.items():
        works = {answer.work for answer in (*before, *after)}
        if len(works) > 1:
            said = " and ".join(describe(work) for work in sorted(works, key=str)[:2])
            raise BadInput(
                f"{second.path}: {phase} question {sample!r} is not always the same work ({said}); "
                "compare runs of the same samples and lengths"
            )
    return common, len(ours.keys() ^ theirs.keys())


def grouped(run: Run) -> Asked:
    found: Asked = {}
    for answer in sorted(run.answers, key=lambda answer: answer.repetition):
        found.setdefault((answer.phase, answer.sample), []).append(answer)
    return found


def same_rounds(asked: Asked, others: Asked) -> Asked:
    """Answers whose question and repetition the other bundle was asked too."""
    rounds = {key: {answer.repetition for answer in answers} for key, answers in others.items()}
    kept = {key: [one for one in answers if one.repetition in rounds.get(key, ())] for key, answers in asked.items()}
    return {key: answers for key, answers in kept.items() if answers}


def describe(work: Sequence[int | None]) -> str:
    names = ("frames", "voxels", "prompt tokens", "reused", "new tokens")
    return ", ".join(f"{count} {name}" for name, count in zip(names, work, strict=True))


class Phase:
    """The answers of one phase, question by question, and which questions and repetitions are drawn of them.

    The draws are the same for all stages. Repetitions are drawn as shares of how often a question was asked, so that
    those of one round stay together.

    Attributes:
        name: "cold", "warm" or "repeated".
        stages: those that all answers of both runs have.
    """

    def __init__(self, name: str, pairs: Sequence[Pair], alternated: bool, seed: int) -> None:
        self.name = name
        self.measured = [[[answer.measured for answer in side] for side in pair] for pair in pairs]
        every = [stages for sides in self.measured for side in sides for stages in side]
        self.stages = [stage for stage in every[0] if all(stage in stages for stages in every)]
        self.alternated = alternated
        self.counts = np.array([[len(side) for side in pair] for pair in pairs]).T
        if alternated:
            self.counts[:] = self.counts.min(axis=0)
        generator = np.random.default_rng(seed)
        self.questions = generator.integers(0, len(pairs), (RESAMPLES, len(pairs)))
        self.shares = [generator.random((RESAMPLES, int(counts.max()))) for counts in self.counts]
        if alternated:
            self.shares[1] = self.shares[0]

    def sides(self, stage: str) -> list[np.ndarray]:
        """Seconds of both runs, a question a row: [questions, repetitions] float64 each, short rows end in nan."""
        return [
            np.array(
                [
                    [*(stages[stage] for stages in sides[side][:count]), *[np.nan] * (max(counts) - count)]
                    for sides, count in zip(self.measured, counts, strict=True)
                ]
            )
            for side, counts in enumerate(self.counts.tolist())
        ]

    def wander(self, stage: str) -> float:
        """How far a run is from itself, in the run where it is further; what took turns saw the same machine."""
        return 0.0 if self.alternated else max(map(self_difference, self.sides(stage)))

    def take(self, seconds: np.ndarray, side: int, some: slice) -> np.ndarray:
        """Some of the draws from a run: [draws, questions, repetitions] float64."""
        rows = self.questions[some][:, :, None]
        places = self.shares[side][some][:, None, :] * self.counts[side][rows]
        found: np.ndarray = seconds[rows, places.astype(np.int64)]
        return found

    def interval(self, sides: Sequence[np.ndarray]) -> tuple[float, float]:
        """Bounds of the ratio."""
        # so many draws at a time that they stay small in memory
        step = max(1, MOST_AT_ONCE // max(side.size for side in sides))
        parts = [slice(at, at + step) for at in range(0, RESAMPLES, step)]
        drawn = ([self.take(side, place, part) for place, side in enumerate(sides)] for part in parts)
        return limits(np.concatenate([ratio(taken, self.alternated) for taken in drawn]))

    def judge(self, stage: str, wander: float, margin: float) -> Change:
        """The verdict on one stage.

        Runs that follow each other see another machine. What a run differs from itself, its first half from its second,
        is what the machine alone does: that of the stage, or of the whole run if it is more. An interval is wider by
        twice as much, since two runs are further apart than two halves of one.
        """
        sides = self.sides(stage)
        before, after = (float(np.median(np.nanmedian(side, axis=1))) for side in sides)
        pairs = int(self.counts.min(axis=0).sum())
        change, low, high, verdict = after / before if before > 0 else 1.0, None, None, UNKNOWN
        # the time between tokens is a mean of many
        least = 0 if stage == TOKEN else LEAST_SECONDS
        if min(before, after) < least or min(np.nanmin(side) for side in sides) <= 0:
            reason = f"too short to tell: {min(before, after) * 1e3:.2g} ms"
        elif pairs < LEAST_PAIRS:
            reason = f"too few pairs: {pairs}, at least {LEAST_PAIRS} are needed"
        else:
            wander = max(wander, self.wander(stage))
            wider = (1 + wander) ** 2
            narrow = self.interval(sides)
            change, low, high = float(ratio(sides, self.alternated)), narrow[0] / wider, narrow[1] * wider
            verdict = verdict_of(low, high, margin)
            reason = why(sides, wander, low, high, margin) if verdict == UNKNOWN else ""
        return Change(
            self.name, stage, before, after, change, low, high, verdict, reason, len(sides[0]), int(self.counts.min())
        )


def ratio(sides: Sequence[np.ndarray], alternated: bool) -> np.ndarray:
    """Median over questions of second to first, from [..., questions, repetitions]; nan is nothing."""
    middle = np.nanmedian if any(np.isnan(side).any() for side in sides) else np.median
    first, second = sides
    each = middle(second / first, axis=-1) if alternated else middle(second, axis=-1) / middle(first, axis=-1)
    found: np.ndarray = np.median(each, axis=-1)
    return found


def self_difference(seconds: np.ndarray) -> float:
    """How far the second half of a run is from its first, beyond what the questions scatter.

    Args:
        seconds: [questions, repetitions] float64, nan at the end; 0 comes of a single repetition.
    """
    half = seconds.shape[1] // 2
    whole = seconds[~np.isnan(seconds).any(axis=1)]
    if not half or not len(whole) or whole.min() <= 0:
        return 0.0
    changes = np.log(np.median(whole[:, -half:], axis=1) / np.median(whole[:, :half], axis=1))
    # two standard errors of a median of normal values
    scatter = 2 * np.sqrt(np.pi / 2 / len(changes)) * changes.std(ddof=1) if len(changes) > 1 else 0.0
    return float(np.exp(max(0.0, abs(np.median(changes)) - scatter))) - 1


def verdict_of(low: float, high: float, margin: float) -> str:
    """What an interval of a ratio says at a margin; the same whichever run comes first."""
    if low > 1 + margin:
        return SLOWER
    if high < 1 / (1 + margin):
        return FASTER
    return SAME if low >= 1 / (1 + margin) and high <= 1 + margin else UNKNOWN


def why(sides: Sequence[np.ndarray], wander: float, low: float, high: float, margin: float) -> str:
    """What makes an interval wide."""
    if high / low < 1 + margin:
        return "the change is about as large as the margin"
    if wander > margin / 4:
        return f"a run differs by {wander:.1%} from itself, first half against second"
    spreads = [np.nanmax(np.nanstd(side, axis=1) / np.nanmean(side, axis=1)) for side in sides if side.shape[1] > 1]
    if spreads and max(spreads) > margin / 2:
        return f"repetitions of one question spread by {max(spreads):.0%}"
    return f"questions differ: the change lies between {low - 1:+.0%} and {high - 1:+.0%}"


# the whole


def overall(changes: Sequence[Change]) -> str:
    """The verdict on two runs."""
    verdicts = {change.verdict for change in changes}
    for found in (SLOWER, FASTER):
        if found in verdicts:
            return found
    return SAME if all(change.verdict == SAME for change in changes if change.stage in HEADLINE) else UNKNOWN


def reasons(first: Run, second: Run, changes: Sequence[Change], verdict: str) -> list[str]:
    """Why it cannot be told, and what is known of the machine that bears on it."""
    found = []
    if verdict == UNKNOWN:
        found += [
            f"{change.phase} {change.stage}: {change.reason}"
            for change in changes
            if change.stage in HEADLINE and change.verdict == UNKNOWN
        ]
    for run in dict.fromkeys((first, second)):
        noise, end = run.about["noise"], run.end
        if noise is not None and noise > NOISY_SPIN:
            found.append(
                f"{run.path.name}: the machine was busy, a fixed spin took up to {noise:.0%} longer than usual"
            )
        if end is None or end["reason"] != "complete":
            found.append(f"{run.path.name}: the run is not complete")
        if end is not None and end["drift"] is not None and abs(end["drift"]) > NOTABLE_DRIFT:
            found.append(f"{run.path.name}: drifted by {end['drift']:+.0%} from the first third of the run to the last")
        if end is not None and end["throttled"]:
            found.append(f"{run.path.name}: the device throttled")
        if not run.about["verified"]:
            found.append(f"{run.path.name}: the bundle has no passing parity record")
    return found
