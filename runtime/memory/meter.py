"""Time and memory by stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .counters import Usage, own_usage, reset_peak

__all__ = ["Meter"]


@dataclass
class Meter:
    """What the stages of an answer took.

    Attributes:
        milliseconds: wall time by stage.
        peak_bytes: most resident memory during a stage, anonymous and mapped, over all processes.
    """

    milliseconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    _depth: int = 0

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage, and note this process's peak."""
        if not self._depth:
            reset_peak()
        self._depth += 1
        start = time.perf_counter()
        try:
            yield
        finally:
            self._depth -= 1
            self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + (time.perf_counter() - start) * 1e3
            self.note(stage)

    def note(self, stage: str, child: Usage | None = None) -> None:
        """Note this process's peak, and that of a process which works for it."""
        together = own_usage().peak + (child.peak if child else 0)
        self.peak_bytes[stage] = max(self.peak_bytes.get(stage, 0), together)

    def copy(self) -> "Meter":
        """A meter that goes on from here."""
        return Meter(dict(self.milliseconds), dict(self.peak_bytes))
