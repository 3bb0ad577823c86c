"""A live view: frames with poses as they come, encoded in the background, and asked about at any moment."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..answer import Answer, View
from ..control.control import Control
from ..errors import BadInput, Cancelled, StllmError, require_at_least
from ..inputs.clip import Clip

__all__ = ["LiveView"]

Look = Callable[[Clip, Control], View]


@dataclass(frozen=True)
class Taken:
    """A frame [H, W, 3] uint8, its camera-to-world pose [4, 4], and its time in seconds, if there are times."""

    frame: np.ndarray
    pose: np.ndarray
    time: float | None


class LiveView:
    """The last frames of a camera in a scene; as a context manager, it ends its thread.

    A thread encodes each frame as it comes, and computes rays once none waits, so that a question runs the aligner and
    the language model alone. Where frames come faster than they are encoded, those that wait longest are passed over
    beyond `backlog`: they stay in the window, and are encoded once a question samples them.

    It has encoders of its own in this process, beside those of the session, so that it never waits for an answer. What
    is known of frames and scene is the session's cache, whose `cache_memory` should have room for the window.

    Attributes:
        window: frames that are kept.
        backlog: frames that wait at most.
        passed_over: frames that were not encoded when they came.
    """

    def __init__(
        self,
        look: Look,
        encode: Callable[[Clip, Control], object],
        answer: Callable[..., Answer],
        close: Callable[[], None],
        *,
        frames: int,
        window: int,
        backlog: int,
    ):
        """Begin with an empty window.

        Args:
            look: gives the view of a clip, by encoders that are this view's own.
            encode: encodes the frames of a clip, by the same.
            answer: answers a question about a view.
            close: frees the encoders.
            frames: to sample of the window for a question.
            window: frames that are kept.
            backlog: frames that wait at most.
        """
        require_at_least({"window": (window, 1), "backlog": (backlog, 0), "--frames": (frames, 1)})
        if window < frames:
            raise BadInput(f"window {window}: is less than the {frames} frames of a question; give a larger one")
        self.window, self.backlog, self.passed_over = window, backlog, 0
        self._look, self._encode, self._answer, self._free = look, encode, answer, close
        self._taken: deque[Taken] = deque(maxlen=window)
        self._waiting: deque[Taken] = deque()
        self._version, self._known = 0, (-1, None)  # type: tuple[int, Any]
        self._change = threading.Condition()
        # of the encoders: one thread at a time
        self._work = threading.Lock()
        self._asked = self._closed = False
        self._control = Control()
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)
        self._thread.start()

    def add(self, frame: np.ndarray, pose: Any, time: float | None = None) -> None:
        """Take a frame; returns at once.

        Args:
            frame: [H, W, 3] uint8 RGB, as large as those before it; copied, since cameras fill a buffer again.
            pose: [4, 4] camera-to-world, metres, OpenCV axes.
            time: seconds, later than that of the frame before; for all frames, or for none.

        Raises:
            BadInput: an argument is not what it has to be.
        """
        checked = Clip.of([frame], poses=[pose])
        with self._change:
            self._require_open()
            before = self._taken[-1] if self._taken else None
            if before is not None and before.frame.shape != frame.shape:
                raise BadInput(f"frame of shape {list(frame.shape)}; those before are {list(before.frame.shape)}")
            if before is not None and (before.time is None) != (time is None):
                raise BadInput("time: give one for each frame, or for none")
            if before is not None and time is not None and before.time is not None and time <= before.time:
                raise BadInput(f"time {time:g}: comes after {before.time:g}, expected ascending times")
            (held,) = checked.frames.posed({}).values()
            taken = Taken(frame.copy(), held, time)
            self._taken.append(taken)
            self._waiting.append(taken)
            while len(self._waiting) > max(self.backlog, 1):
                self._waiting.popleft()
                self.passed_over += 1
            self._version += 1
            self._change.notify_all()

    @property
    def waiting(self) -> int:
        """Frames that are not encoded yet."""
        return len(self._waiting)

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until all is known that a question needs; false where that takes longer than `timeout` seconds."""
        with self._change:
            return self._change.wait_for(lambda: self._closed or self._known[0] == self._version, timeout)

    def view(self) -> View:
        """What there is to see of the window now, the same as `Session.look` gives for its frames.

        Raises:
            BadInput: there is no frame yet, or the frames do not belong to the scene.
            StllmError: the last frame could not be encoded when it came.
        """
        with self._change:
            self._require_open()
            if not self._taken:
                raise BadInput("the live view has no frame yet; add one")
            version, taken = self._version, list(self._taken)
            self._asked = True
        try:
            if self._known[0] != version:
                # the thread leaves the encoders after the frame that it is at
                with self._work:
                    if self._known[0] != version:
                        self._keep(version, self._see(taken, Control()))
        finally:
            with self._change:
                self._asked = False
                self._change.notify_all()
        known = self._known[1]
        if isinstance(known, Exception):
            raise known
        view: View = known
        return view

    def ask(self, question: str, **how: Any) -> Answer:
        """Answer a question about the window as it is now; arguments and errors as in `Session.answer`."""
        return self._answer(self.view().again(), question, **how)

    def close(self) -> None:
        """End the thread and free the encoders."""
        with self._change:
            if self._closed:
                return
            self._closed = True
            self._change.notify_all()
        self._control.cancel()
        self._thread.join()
        self._free()

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closed:
            raise StllmError("the live view was closed; watch again")

    def _see(self, taken: Sequence[Taken], control: Control) -> Any:
        """The view of frames, or the error that speaks against it."""
        times = [one.time - taken[0].time for one in taken if one.time is not None and taken[0].time is not None]
        try:
            clip = Clip.of([one.frame for one in taken], poses=[one.pose for one in taken], times=times or None)
            return self._look(clip, control)
        except Cancelled:
            raise
        except StllmError as error:
            return error

    def _keep(self, version: int, known: Any) -> None:
        with self._change:
            self._known = version, known
            self._change.notify_all()

    def _run(self) -> None:
        """Encode what waits, and see the window once nothing does."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or (not self._asked and self._known[0] != self._version))
                if self._closed:
                    return
                one = self._waiting.popleft() if self._waiting else None
                version, taken = self._version, list(self._taken)
            try:
                with self._work:
                    if one is not None:
                        self._encode(Clip.of([one.frame], poses=[one.pose]), self._control)
                    elif self._known[0] != version:
                        self._keep(version, self._see(taken, self._control))
            except Cancelled:
                return
            # whatever it is, it is told with the next question, and the thread goes on with the next frame
            except Exception as error:
                self._keep(version, error)
