"""Ending work early: from another thread, or at a deadline, whatever it is at."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import Cancelled, StllmError
from .events import Event, Listener

__all__ = ["Control"]


class Control:
    """Of one question: whether it goes on, and who is told of its stages.

    What can be ended in the midst of a call says how, with `stopping`; everything else asks with `check` between calls.
    A cancelled question stays cancelled; the next one has a control of its own.
    """

    def __init__(self, listen: Listener = None, max_time: float | None = None):
        """Begin.

        Args:
            listen: is called with each event, in the thread that works.
            max_time: seconds from now on after which the question is cancelled; None for no deadline.

        Attributes:
            stage: that the work is at.
            timed_out: whether the deadline has passed.
        """
        self._listen, self._max_time = listen, max_time
        self._lock = threading.Lock()
        self._stops: list[Callable[[], None]] = []
        self._reason, self.stage, self.timed_out = "", "", False
        self._timer: threading.Timer | None = None
        if max_time is not None:
            self._timer = threading.Timer(max_time, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def emit(self, event: Event) -> None:
        """Tell the listener, if there is one."""
        if self._listen is not None:
            self._listen(event)

    def cancel(self) -> None:
        """End the work, from any thread; it raises `Cancelled` where it is."""
        self._end("it was cancelled")

    def finish(self) -> None:
        """No deadline any more; called when the work is over."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled, or its deadline has passed."""
        return bool(self._reason)

    def check(self) -> None:
        """Raise Cancelled if the work is to end."""
        if self._reason:
            where = f" during {self.stage}" if self.stage else ""
            raise Cancelled(f"the question was ended{where}: {self._reason}")

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` from the cancelling thread while the block runs; what that makes fail becomes Cancelled."""
        with self._lock:
            self._stops.append(stop)
        try:
            self.check()
            yield
        except StllmError:
            self.check()
            raise
        finally:
            with self._lock:
                self._stops.remove(stop)

    def _expire(self) -> None:
        self.timed_out = not self._reason
        self._end(f"its {self._max_time:g} s (--max-time) are over")

    def _end(self, reason: str) -> None:
        # under the lock: a block that is left meanwhile must not be stopped when it has gone
        with self._lock:
            self._reason = self._reason or reason
            for stop in self._stops:
                stop()
