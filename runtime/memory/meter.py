"""Time and memory by stage, and what is told of stages."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ..control.control import Control
from ..control.events import StageFinished, StageStarted
from .counters import Usage, note_peak, own_usage, reset_peak

__all__ = ["Meter"]


@dataclass
class Meter:
    """What the stages of an answer took; of one thread, like the stages themselves.

    Attributes:
        stages: the names that can be measured, as the table of stages has them.
        milliseconds: wall time by stage, without that of stages measured inside it: their sum is at most the time that
            has passed.
        reused: by stage, how many of its results were known before and how many were computed.
        control: of the question; asked before each stage whether it goes on, and told of it.
        timeline: seconds of `time.perf_counter` at which a stage began to be on the clock, or went on after one inside
            it, with its name; without a name where none was.
    """

    stages: Collection[str]
    milliseconds: dict[str, float] = field(default_factory=dict)
    reused: dict[str, dict[str, int]] = field(default_factory=dict)
    control: Control = field(default_factory=Control, repr=False)
    timeline: list[tuple[float, str]] = field(default_factory=list)
    _own: dict[str, Usage] = field(default_factory=dict)
    _children: dict[str, Usage] = field(default_factory=dict)
    _running: list["Running"] = field(default_factory=list)
    _on_clock: list[str] = field(default_factory=list)

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Most resident memory during a stage, and those inside it, anonymous and mapped, over all its processes."""
        return {stage: usage.peak for stage, usage in self.usage.items()}

    @property
    def usage(self) -> dict[str, Usage]:
        """The same with what was anonymous and what was mapped at the end of a stage, over all its processes."""
        return {stage: own + self._children.get(stage, Usage()) for stage, own in self._own.items()}

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage: `measure` without memory, for what takes microseconds.

        Raises:
            ValueError: there is no such stage.
        """
        self._require_known(stage)
        self._on_clock.append(stage)
        self._switch()
        try:
            yield
        finally:
            self._on_clock.pop()
            self._switch()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage, and note this process's peak.

        Raises:
            ValueError: there is no such stage.
        """
        self._require_known(stage)
        self.control.stage = stage
        self.control.check()
        before = reset_peak()
        for outer in self._running:
            outer.peak = max(outer.peak, before)
        running = Running()
        self._running.append(running)
        try:
            with self.clock(stage):
                yield
        finally:
            self._running.pop()
            # nothing is reset here, so a stage around this one still sees its peak
            now = own_usage()
            peak = max(self._own.get(stage, Usage()).peak, running.peak, now.peak)
            self._own[stage] = replace(now, peak=peak)

    @contextmanager
    def tell(self, stage: str) -> Iterator[None]:
        """Tell the listener that a stage begins and ends, in however many pieces it is measured inside."""
        self.control.emit(StageStarted(stage))
        yield
        self.control.emit(StageFinished(stage, round(self.milliseconds.get(stage, 0.0), 3)))

    def note_reuse(self, stage: str, known: bool) -> None:
        """Count a result of a stage that was known before, or that had to be computed; raises ValueError as above."""
        self._require_known(stage)
        counts = self.reused.setdefault(stage, {"hits": 0, "misses": 0})
        counts["hits" if known else "misses"] += 1

    def note(self, stage: str, child: Usage) -> None:
        """Add the peak of a process that works for a stage beside this one; raises ValueError as `measure` does."""
        self._require_known(stage)
        self._children[stage] = replace(child, peak=max(self._children.get(stage, Usage()).peak, child.peak))
        note_peak(max([own_usage().peak, *(running.peak for running in self._running)]) + child.peak)

    def copy(self, control: Control | None = None) -> "Meter":
        """A meter that goes on from here, for a question with a control of its own."""
        reused = {stage: dict(counts) for stage, counts in self.reused.items()}
        known = dict(self.milliseconds), reused, control or Control(), list(self.timeline)
        return Meter(self.stages, *known, dict(self._own), dict(self._children))

    def _switch(self) -> None:
        """Let the time until now count for the stage that was on the clock, and from now for the innermost."""
        now, stage = time.perf_counter(), self._on_clock[-1] if self._on_clock else ""
        if self.timeline and (before := self.timeline[-1])[1]:
            self.milliseconds[before[1]] = self.milliseconds.get(before[1], 0.0) + (now - before[0]) * 1e3
        self.timeline.append((now, stage))

    def _require_known(self, stage: str) -> None:
        if stage not in self.stages:
            raise ValueError(f"no stage {stage!r}; there are {', '.join(self.stages)}")


@dataclass
class Running:
    """A stage that is being measured: this process's peak before the last reset."""

    peak: int = 0
