"""The process that is measured: a session that answers one question after the other, and tells what was on its clock.

It is told what to do over a socket. Times are those of `time.perf_counter`, which on Linux is one clock for all
processes, so the process that started this one knows how long the start took, and reads the sensors meanwhile.
"""

import contextlib
import logging
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ....runtime.answer import Answer, View
from ....runtime.bundle.manifest import Bundle
from ....runtime.bundle.table import CLOCKED
from ....runtime.encoders.channel import Channel
from ....runtime.encoders.local import onnx_runtime
from ....runtime.encoders.worker import end_with_parent
from ....runtime.errors import StllmError
from ....runtime.llm.libllama import libllama
from ....runtime.memory.meter import Meter
from ....runtime.options import Options
from ....runtime.session import Session
from ..question import Question

__all__ = ["Work", "main"]

OUTSIDE = ("imports", "open")


class Work:
    """A bundle, opened when the first question comes, and the view that was looked at last."""

    def __init__(self, begun: float, bundle: str, options: dict[str, Any], frames: int, new_tokens: int):
        """Open nothing yet.

        Args:
            begun: when this process began to import.
            bundle: its folder.
            options: fields of `Options`.
            frames: to sample.
            new_tokens: of each answer.
        """
        self._begun = begun
        # every look is measured, also one at what was looked at before
        self._path, self._options = Path(bundle), replace(Options(**options), cache=None, cache_memory=0)
        self._frames, self._new_tokens = frames, new_tokens
        self._session: Session | None = None
        self._view: View | None = None

    def ask(self, question: Question, again: bool) -> dict[str, Any]:
        """Answer a question; what was on the clock, and what was counted.

        Args:
            question: what is asked.
            again: whether scene and clip are those that were looked at last, and the other question is asked.
        """
        meter = Meter((*CLOCKED, *OUTSIDE))
        start = self._begun if self._session is None else time.perf_counter()
        session = self._session or self._open(meter)
        view = self._view if again else self._look(session, question, meter)
        if view is None:
            raise StllmError("no scene and clip were looked at before")
        self._view = view
        text, first = question.other if again else question.text, None
        answer = session.answer(view, text, max_new_tokens=self._new_tokens)
        for _ in answer:
            # the first text, not the first token: that may be half a letter, or a space
            first = time.perf_counter() if first is None and answer.text.strip() else first
        stop = time.perf_counter()
        return {"start": start, "stop": stop, "first": first, **told(meter, answer, start)}

    def _open(self, meter: Meter) -> Session:
        """Libraries, bundle and session; the clock is put back to when this process began to import."""
        meter.timeline.append((self._begun, "imports"))
        if self._options.resident:
            # encoders of their own processes have it imported there
            onnx_runtime()
        with meter.measure("open"):
            bundle = Bundle(self._path)
            # an answer that ended early would be of another length
            bundle.stop_ids = ()
            self._session = Session(bundle, self._options)
            self._session.prepare()
        # in this order, processes of encoders start meanwhile, as in `stllm-run`
        with meter.measure("imports"):
            libllama()
        return self._session

    def _look(self, session: Session, question: Question, meter: Meter) -> View:
        # the arrays of the view before are not held beside the new ones
        self._view = None
        with meter.measure("scene"):
            scene, clip, reading = question.load()
        return session.look(scene, clip, frames=self._fixed(session), max_new_tokens=self._new_tokens, reading=reading)

    def _fixed(self, session: Session) -> int | None:
        """Frames to ask for: the bundle's own number repeats frames of short clips, another one is refused there."""
        return None if self._frames == session.bundle.defaults.frames else self._frames

    def close(self) -> None:
        """Free what is loaded."""
        if self._session is not None:
            self._session.close()


def told(meter: Meter, answer: Answer, start: float) -> dict[str, Any]:
    """Timeline, counts and memory of an answer that was read to its end."""
    view = answer.view
    # what a view took is on the clock of all answers about it, also of those that came later
    events = [*meter.timeline, *(event for event in answer.meter.timeline if event[0] >= start)]
    stages = {stage for _, stage in events}
    usage = {stage: asdict(used) for stage, used in (answer.meter.usage | meter.usage).items() if stage in stages}
    return {
        "events": events,
        "usage": usage,
        "frames": len(view.selection),
        "voxels": len(view.voxels),
        "prompt_tokens": answer.prompt_tokens,
        "reused_tokens": answer.meter.reused.get("prefill", {}).get("hits", 0),
        "ended": answer.ended,
        "new_tokens": len(answer.token_ids),
        "text": answer.text,
    }


def main(begun: float) -> None:
    """Serve over the socket that the first argument names; `begun` is when this process began to import."""
    # what libraries print goes to stderr; stdout belongs to the results
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    end_with_parent()
    channel = Channel(int(sys.argv[1]))
    with contextlib.suppress(EOFError, ConnectionError):
        settings, _ = channel.receive()
        work = Work(begun, **settings)
        try:
            while True:
                task, _ = channel.receive()
                channel.send(work.ask(Question.from_json(task["question"]), task["again"]))
        except StllmError as error:
            channel.send({"error": str(error)})
        finally:
            work.close()
