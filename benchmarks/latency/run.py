"""A run: questions in their order to the processes that are measured, rows to disk, and what was said at the end."""

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from ...runtime.errors import BadInput, StllmError
from .machine.board import Board, describe_board, versions
from .machine.cache import drop_cache
from .machine.monitor import Monitor
from .machine.sensors import SECOND, find_sensors, used_memory
from .machine.spin import SPIN, restlessness, spin
from .process.asking import Asker, Timing
from .record import Record
from .rows import Row
from .schedule import Schedule, Step, steps
from .statistics import Drift, drift
from .store import Store
from .subject import Subject
from .workload import Workload

__all__ = ["Run", "Task"]

LOG = logging.getLogger(__name__)
# seconds at rest before a run
IDLE = 2.0
LONGEST_COOLING, COOLING_STEP = 900.0, 1.0
# a fixed amount of work that takes so much longer now and then tells of other work on the machine
RESTLESS = 0.1
DRIFTED = "answers took %+.0f %% at the end of the run against its beginning: %s; --delay and --cool-to give it time"
# columns that two parts of one run have alike
SAME: tuple[str, ...] = ("workload_digest", "bundle_digest", "precision", "quant", "kv", "flash_attention", "threads")
SAME += ("gpu_layers", "resident", "provider", "device", "power_mode", "recompute")


@dataclass(frozen=True)
class Task:
    """What a run is asked for.

    Attributes:
        subjects: one bundle, or two in turns.
        workload: the questions.
        schedule: how often.
        command: that repeats it.
        seed: of what is drawn.
    """

    subjects: Sequence[Subject]
    workload: Workload
    schedule: Schedule
    command: str
    seed: int = 0


@dataclass
class Run:
    """One task, measured into one file.

    Attributes:
        task: what is asked for.
        store: where rows go.
        root: the tree of files that tells of the machine.
        advance: called with a number of answers as they come.
    """

    task: Task
    store: Store
    root: Path = Path("/")
    advance: Callable[[int], None] = lambda answers: None
    # what each process looked at last
    _looked_at: dict[int, int] = field(default_factory=dict)

    def measure(self) -> None:
        """Do what is left to do, and write the row of the end.

        Raises:
            BadInput: the file holds another run, or the disk is full.
            StllmError: a process that answers failed.
            KeyboardInterrupt: what was measured before this, or before an error, is kept.
        """
        board = describe_board(self.root)
        before = [row for row in self.store.rows if row["kind"] == "run"]
        self._require_same(before, board)
        done = self._done()
        if next(self._left(done), None) is None:
            LOG.warning("%s: holds the whole run already; give another --out to measure again", self.store.path)
            return
        monitor = Monitor(find_sensors(self.root), used_memory(self.root))
        if self.task.schedule.cool_to is not None and monitor.hottest() is None:
            raise BadInput(f"--cool-to {self.task.schedule.cool_to:g}: this machine shows no temperature; use --delay")
        begun = datetime.fromisoformat(before[0]["started"]) if before else datetime.now(timezone.utc)
        passed = (datetime.now(timezone.utc) - begun).total_seconds()
        name = before[0]["run"] if before else secrets.token_hex(8)
        record = Record(name, self.task.workload, self.task.subjects, time.perf_counter() - passed)
        with ExitStack() as stack:
            askers = [stack.enter_context(self._asker(subject)) for subject in self.task.subjects]
            stack.enter_context(monitor)
            self._append(record.about(self._conditions(board, monitor)), record, monitor)
            with self._ending(record, monitor):
                for step in self._left(done):
                    self._cool(monitor)
                    # beside every answer: how fast the machine itself is
                    monitor.note(SPIN, SECOND, spin())
                    timing, drop = self._ask(askers[step.bundle], step)
                    # the power that a stage took is known once it was read after the stage
                    monitor.sample()
                    self._append(record.answer(step, timing, monitor, drop), record, monitor)
                    done[step] = timing.total
                    self.advance(1)
                    time.sleep(self.task.schedule.delay)

    def _left(self, done: dict[Step, float]) -> Iterator[Step]:
        return steps(self.task.schedule, len(self.task.subjects), len(self.task.workload.questions), done)

    def _asker(self, subject: Subject) -> Asker:
        workload = self.task.workload
        assert workload.frames is not None
        return Asker(subject.bundle, subject.options, workload.frames, workload.new_tokens)

    def _ask(self, asker: Asker, step: Step) -> tuple[Timing, str | None]:
        """The answer to a step's question, and what was done to the page cache before it."""
        question, drop = self.task.workload.questions[step.question], None
        if step.phase == "cold":
            asker.close()
            drop = drop_cache(self.task.subjects[step.bundle].files)
        again = step.phase == "repeated"
        if again and self._looked_at.get(step.bundle) != step.question:
            # a run that goes on looked at it in another process
            asker.ask(question)
        self._looked_at[step.bundle] = step.question
        return asker.ask(question, again=again), drop

    def _cool(self, monitor: Monitor) -> None:
        """Wait until no zone is hotter than was asked for."""
        limit, start = self.task.schedule.cool_to, time.monotonic()
        while limit is not None and (heat := monitor.hottest()) is not None and heat > limit:
            if time.monotonic() - start > LONGEST_COOLING:
                LOG.warning("still at %.0f °C after %.0f minutes, and not cooler", heat, LONGEST_COOLING / 60)
                return
            time.sleep(COOLING_STEP)

    def _append(self, rows: list[Row], record: Record, monitor: Monitor) -> None:
        self.store.append(record.readings(monitor.take()) + rows)

    def _done(self) -> dict[Step, float]:
        """Steps that the file holds, and their seconds."""
        bundles = {subject.label: place for place, subject in enumerate(self.task.subjects)}
        questions = {question.id: place for place, question in enumerate(self.task.workload.questions)}
        return {
            Step(
                bundles[row["bundle"]], questions[row["sample"]], row["phase"], row["repetition"], row["warm_up"]
            ): row["seconds"]
            for row in self.store.rows
            if row["kind"] == "stage" and row["stage"] == "total"
        }

    def _require_same(self, before: list[Row], board: Board) -> None:
        """Raise BadInput unless the file is empty or holds a part of this run."""
        now = {
            subject.label: {
                **subject.columns(),
                "workload_digest": self.task.workload.digest,
                "device": board.device,
                "power_mode": board.power_mode,
            }
            for subject in self.task.subjects
        }
        for row in before:
            ours = now.get(row["bundle"])
            other = ["bundle"] if ours is None else [name for name in SAME if row.get(name) != ours.get(name)]
            if other:
                name = other[0].removesuffix("_digest")
                theirs, found = row[other[0]], "another" if ours is None else ours[other[0]]
                raise BadInput(
                    f"{self.store.path}: holds a run of another {name} ({shown(theirs)}, not {shown(found)}); "
                    "give another --out, or delete it to start again"
                )

    def _conditions(self, board: Board, monitor: Monitor) -> dict[str, Any]:
        """What is true of both bundles: machine, libraries, and how restless it is."""
        if (restless := restlessness()) > RESTLESS:
            LOG.warning("this machine is restless: the same work takes %.0f %% longer now and then", restless * 100)
        rest = time.perf_counter()
        if monitor.rails:
            time.sleep(IDLE)
        waited = time.perf_counter() - rest
        # power between two moments takes readings before and after
        monitor.sample()
        return {
            "started": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "command": self.task.command,
            "seed": self.task.seed,
            "version": metadata.version("stllm-edge"),
            **asdict(board),
            **versions(),
            "idle_watts": monitor.watts(rest, rest + waited) if monitor.rails else None,
            "rails": " + ".join(monitor.rails) or None,
            "seconds_idle": waited if monitor.rails else None,
            "temperature_before": monitor.hottest(),
            "noise": restless,
        }

    @contextmanager
    def _ending(self, record: Record, monitor: Monitor) -> Iterator[None]:
        """Write how it ended, whichever way that is."""
        reason, message = "complete", None
        try:
            yield
        except KeyboardInterrupt:
            reason = "interrupted"
            raise
        except StllmError as error:
            reason, message = "failed", str(error)
            raise
        finally:
            found = drift_of(self.store.rows)
            if found and found.found:
                LOG.warning(DRIFTED, found.change * 100, "it is throttled" if found.change > 0 else "it was not warm")
            end = {
                "reason": reason,
                "message": message,
                "seconds": time.perf_counter() - record.epoch,
                "drift": found.change if found else None,
                "throttled": found.found and found.change > 0 if found else None,
                "temperature_after": monitor.hottest(),
            }
            try:
                self._append([record.end(end)], record, monitor)
            except BadInput as error:
                # the reason that is on its way says so already
                LOG.debug("%s", error)


def drift_of(rows: Sequence[Row]) -> Drift | None:
    """How the time of an answer changed over the rounds; None where questions were asked less than three times."""
    totals = [
        row
        for row in rows
        if row["kind"] == "stage" and row["stage"] == "total" and row["phase"] == "warm" and not row["warm_up"]
    ]
    return drift([row["seconds"] for row in totals], [(row["bundle"], row["sample"]) for row in totals])


def shown(value: object) -> str:
    return str(value)[:40]
