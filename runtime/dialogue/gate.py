"""One thread at a time: another one is refused, in words, and may cancel."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from ..answer import Answer
from ..control.control import Control
from ..errors import StllmError

__all__ = ["Gate"]

REFUSED = (
    "the session is at work in another thread; wait for its answer, cancel() it, ask with ask_async, or open a session "
    "of your own"
)


class Gate:
    """Lets one thread at a time work with a session.

    A session is not shared between threads: encoders and the language model do one thing at a time. A second thread is
    refused instead of made to wait, since only its caller knows whether the first question is still worth its time.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._control: Control | None = None
        # weak: an answer that its caller drops is no longer read
        self._read: weakref.ref[Answer] | None = None
        self._reader = threading.current_thread()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Work; raises StllmError while another thread does, or reads an answer that it has begun."""
        if not self._lock.acquire(blocking=False):
            raise StllmError(REFUSED)
        try:
            answer = self._read() if self._read is not None else None
            others = self._reader is not threading.current_thread() and self._reader.is_alive()
            if answer is not None and answer.being_read and others:
                raise StllmError(REFUSED)
            yield
        finally:
            self._lock.release()

    def reading(self, answer: Answer) -> None:
        """From now on the session is the current thread's, until the answer is read or closed."""
        self._read, self._reader = weakref.ref(answer), threading.current_thread()

    @contextmanager
    def question(self, control: Control) -> Iterator[Control]:
        """Begin a question, which `cancel` ends; a control that fails has no deadline any more."""
        with self.entered():
            self._control = control
            try:
                control.check()
                yield control
            except BaseException:
                control.finish()
                raise

    @contextmanager
    def closing(self) -> Iterator[None]:
        """End what is at work, and wait until it is over."""
        self.cancel()
        with self._lock:
            yield

    def cancel(self) -> None:
        """End the question that was begun last."""
        if self._control is not None:
            self._control.cancel()
