"""Time and memory by stage."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .counters import Usage, note_peak, own_usage, reset_peak

__all__ = ["Meter"]


@dataclass
class Meter:
    """What the stages of an answer took; of one thread, like the stages themselves.

    Attributes:
        stages: the names that can be measured, as the table of stages has them.
        milliseconds: wall time by stage, without that of stages measured inside it: their sum is at most the time that
            has passed.
    """

    stages: Collection[str]
    milliseconds: dict[str, float] = field(default_factory=dict)
    _own: dict[str, int] = field(default_factory=dict)
    _children: dict[str, int] = field(default_factory=dict)
    _running: list["Running"] = field(default_factory=list)

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Most resident memory during a stage, and those inside it, anonymous and mapped, over all its processes."""
        return {stage: own + self._children.get(stage, 0) for stage, own in self._own.items()}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage, and note this process's peak.

        Raises:
            ValueError: there is no such stage.
        """
        self._require_known(stage)
        before = reset_peak()
        for outer in self._running:
            outer.peak = max(outer.peak, before)
        running = Running()
        self._running.append(running)
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self._running.pop()
            if self._running:
                self._running[-1].inside += spent
            self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + (spent - running.inside) * 1e3
            # nothing is reset here, so a stage around this one still sees its peak
            self._own[stage] = max(self._own.get(stage, 0), running.peak, own_usage().peak)

    def note(self, stage: str, child: Usage) -> None:
        """Add the peak of a process that works for a stage beside this one; raises ValueError as `measure` does."""
        self._require_known(stage)
        self._children[stage] = max(self._children.get(stage, 0), child.peak)
        note_peak(max([own_usage().peak, *(running.peak for running in self._running)]) + child.peak)

    def copy(self) -> "Meter":
        """A meter that goes on from here."""
        return Meter(self.stages, dict(self.milliseconds), dict(self._own), dict(self._children))

    def _require_known(self, stage: str) -> None:
        if stage not in self.stages:
            raise ValueError(f"no stage {stage!r}; there are {', '.join(self.stages)}")


@dataclass
class Running:
    """A stage that is being measured: this process's peak before the last reset, and seconds in stages inside it."""

    peak: int = 0
    inside: float = 0.0
