"""What a run writes: its rows, each of a kind of the schema."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .machine.monitor import Monitor, Reading
from .process.asking import Timing
from .rows import SCHEMA, Row
from .schedule import Step
from .subject import Subject
from .workload import Workload

__all__ = ["Record"]


@dataclass(frozen=True)
class Record:
    """Makes the rows of one run.

    Attributes:
        run: its id.
        workload: what is measured.
        subjects: the bundles.
        epoch: moment of `time.perf_counter` at which the run began.
    """

    run: str
    workload: Workload
    subjects: Sequence[Subject]
    epoch: float

    def about(self, columns: Mapping[str, Any]) -> list[Row]:
        """Rows of the run: one a bundle with what is known beforehand, and one a file."""
        told = {
            "workload": self.workload.name,
            "workload_digest": self.workload.digest,
            "samples": len(self.workload.questions),
            "frames": self.workload.frames,
            "new_tokens": self.workload.new_tokens,
        }
        rows = [self._row("run", subject, {**columns, **told, **subject.columns()}) for subject in self.subjects]
        for subject in self.subjects:
            digests = zip(subject.setup.files, subject.bundle.digests(subject.setup.files).values(), strict=True)
            rows += [
                self._row("file", subject, {"name": name, "bytes": subject.bundle.size(name), "sha256": digest})
                for name, digest in digests
            ]
        return rows

    def answer(self, step: Step, timing: Timing, monitor: Monitor, drop: str | None) -> list[Row]:
        """Rows of an answer, its total last."""
        subject = self.subjects[step.bundle]
        common = {
            "workload": self.workload.name,
            "workload_digest": self.workload.digest,
            "sample": self.workload.questions[step.question].id,
            "phase": step.phase,
            "repetition": step.repetition,
            "warm_up": step.warm_up,
            "verified": subject.verified,
        }
        counted = {
            "frames": timing.frames,
            "voxels": timing.voxels,
            "prompt_tokens": timing.prompt_tokens,
            "reused_tokens": timing.reused_tokens,
            "new_tokens": timing.new_tokens,
            "finish_reason": "deadline" if timing.ended == "time" else timing.ended,
            "drop": drop,
        }
        rows = [self._row("interval", subject, {**common, **asdict(interval)}) for interval in timing.intervals()]
        for stage, spans in timing.spans().items():
            joules, (items, unit) = monitor.joules(spans), timing.items(stage)
            figures = {
                "stage": stage,
                "seconds": sum(end - begin for begin, end in spans),
                "items": items,
                "unit": unit,
                **memory(stage, timing),
                "gpu_bytes": monitor.gpu_bytes(spans),
                "joules": monitor.total(joules),
                **{f"joules_{rail}": energy for rail, energy in joules.items()},
            }
            rows.append(self._row("stage", subject, {**common, **counted, **figures}))
        return rows

    def readings(self, readings: Sequence[Reading]) -> list[Row]:
        """Rows of sensors."""
        return [
            self._row(
                "sensor",
                self.subjects[0],
                {
                    "seconds": reading.moment - self.epoch,
                    "sensor": reading.sensor,
                    "unit": reading.unit,
                    "value": reading.value,
                },
            )
            for reading in readings
        ]

    def end(self, columns: Mapping[str, Any]) -> Row:
        """The last row."""
        return self._row("end", self.subjects[0], columns)

    def _row(self, kind: str, subject: Subject, columns: Mapping[str, Any]) -> Row:
        return {"schema": SCHEMA, "kind": kind, "run": self.run, "bundle": subject.label, **columns}


def memory(stage: str, timing: Timing) -> dict[str, int | None]:
    """Most that was anonymous during a stage, and what of files was mapped at its end; of the total, the highest."""
    if stage == "total":
        parts = [memory(name, timing) for name in timing.usage]
        return {key: max((part[key] or 0 for part in parts), default=None) for key in ("anonymous_bytes", "file_bytes")}
    used = timing.usage.get(stage)
    if used is None or not used.peak:
        return {"anonymous_bytes": None, "file_bytes": None}
    # the kernel keeps the peak of both together; what is mapped only grows while weights are read
    return {"anonymous_bytes": max(used.anonymous, used.peak - used.mapped), "file_bytes": used.mapped}
