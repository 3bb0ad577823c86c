"""Whether a run is slower than another: each stage, question by question, with an interval and a verdict."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...runtime.errors import BadInput
from ..latency.statistics import NOTABLE_DRIFT
from .phase import FASTER, SAME, SLOWER, UNKNOWN, Change, Pair, Phase, machine_difference
from .runs import FIRST_TOKEN, PHASES, TOKEN, TOTAL, Answer, Run, read_run, read_runs

__all__ = ["GUARDS", "MARGIN", "Comparison", "compare", "compare_files", "took_turns"]

MARGIN = 0.05
# what the verdict of a comparison rests on when no stage stands out
HEADLINE = (TOTAL, FIRST_TOKEN, TOKEN)
NOISY_SPIN = 0.05
# what must be the same, the columns that tell, and what it is called
GUARDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "workload": (("workload", "workload_digest"), "another workload"),
    "device": (("device", "board", "cpu", "gpu", "memory_bytes"), "another device"),
    "power-mode": (("power_mode",), "another power mode"),
}
# what tells runs apart and may well be what is compared
SETTINGS = (
    "bundle", "version", "quant", "precision", "kv", "flash_attention", "threads", "gpu_layers", "provider", "resident",
    "governor", "clocks_locked", "jetpack", "driver", "kernel", "python", "verified", "recompute",
)  # fmt: skip


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
    machine = 0.0 if alternated else machine_difference(first.spins, second.spins)
    pairs, unpaired = paired(first, second)
    phases = [
        Phase(phase, [pair for (other, _), pair in pairs.items() if other == phase], alternated, seed, machine)
        for phase in PHASES
        if any(other == phase for other, _ in pairs)
    ]
    wander = max(phase.wander(TOTAL) for phase in phases)
    stages = [(phase, stage) for phase in phases for stage in phase.stages]
    # the headline is looked at whatever comes out; of all the others, one may stand out by chance
    changes = tuple(
        phase.judge(stage, wander, margin, 1 if stage in HEADLINE else len(stages)) for phase, stage in stages
    )
    verdict = overall(changes)
    partial = [
        f"{phase.name}: not in every answer and so not compared: {', '.join(phase.partial)}"
        for phase in phases
        if phase.partial
    ]
    return Comparison(
        first=label(first),
        second=label(second),
        margin=margin,
        verdict=verdict,
        reasons=tuple(dict.fromkeys([*reasons(first, second, changes, verdict), *partial])),
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
    return f"{run.source} ({run.name}, {run.about['quant']}, {run.about['started']})"


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


def overall(changes: Sequence[Change]) -> str:
    """The verdict on two runs: of what stands out, else of the headline of the phases that have an interval."""
    verdicts = {change.verdict for change in changes}
    for found in (SLOWER, FASTER):
        if found in verdicts:
            return found
    judged = {change.verdict for change in changes if change.stage in HEADLINE and change.low is not None}
    return SAME if judged == {SAME} else UNKNOWN


def reasons(first: Run, second: Run, changes: Sequence[Change], verdict: str) -> list[str]:
    """Why it cannot be told, and what is known of the machine that bears on it."""
    found = [
        f"{change.phase} {change.stage}: {change.reason}"
        for change in changes
        if change.alone
        or (
            change.stage in HEADLINE
            and change.verdict == UNKNOWN
            # what has no interval is told once a phase, whatever the verdict
            and (verdict == UNKNOWN if change.low is not None else change.stage == TOTAL)
        )
    ]
    for run in dict.fromkeys((first, second)):
        noise, end = run.about["noise"], run.end
        if noise is not None and noise > NOISY_SPIN:
            found.append(f"{run.source}: the machine was busy, a fixed spin took up to {noise:.0%} longer than usual")
        if end is None or end["reason"] != "complete":
            found.append(f"{run.source}: the run is not complete")
        if end is not None and end["drift"] is not None and abs(end["drift"]) > NOTABLE_DRIFT:
            found.append(f"{run.source}: drifted by {end['drift']:+.0%} from the first third of the run to the last")
        if end is not None and end["throttled"]:
            found.append(f"{run.source}: the device throttled")
        if not run.about["verified"]:
            found.append(f"{run.source}: the bundle has no passing parity record")
        if run.approximate:
            found.append(f"{run.source}: {run.approximate}")
    return found
