"""Questions to a process that is measured, and where the time of each answer went."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from ....runtime.bundle.manifest import Bundle
from ....runtime.encoders.channel import Channel
from ....runtime.errors import StllmError
from ....runtime.memory.counters import Usage
from ....runtime.options import Options
from ..question import Question

__all__ = ["Asker", "Interval", "Timing"]

# modules in the current folder must not shadow the installed ones
PROGRAM = (
    "import time; begun = time.perf_counter(); import sys; sys.path[:] = filter(None, sys.path); "
    f"from {__package__}.worker import main; main(begun)"
)
PATIENCE = 10.0
# what each stage works through
UNITS = {
    "frame": ("video", "resize", "vision"),
    "voxel": ("voxels", "maps", "points"),
    "position": ("prefill",),
    "token": ("decode", "sampling", "detokenise"),
}


@dataclass(frozen=True)
class Interval:
    """Seconds between two tokens: number `index` and the one before it, with `depth` positions read by the model."""

    index: int
    seconds: float
    depth: int


@dataclass(frozen=True)
class Timing:
    """An answer and its time; moments are seconds of `time.perf_counter`.

    Attributes:
        start: when the question was asked, or the process started that it was asked first.
        stop: when the answer was there.
        first: when its first text was there; None where it has none.
        events: moments at which a stage began to be on the clock, ascending; what none counts is `other`.
        usage: memory by stage.
        frames: frames looked at.
        voxels: voxels of the scene.
        prompt_tokens: positions of the prompt.
        reused_tokens: of these, the ones that the model had read before.
        ended: why the answer ended, as `Answer.ended` says it.
        new_tokens: tokens of the answer.
        text: the answer.
    """

    start: float
    stop: float
    first: float | None
    events: tuple[tuple[float, str], ...]
    usage: Mapping[str, Usage]
    frames: int
    voxels: int
    prompt_tokens: int
    reused_tokens: int
    ended: str
    new_tokens: int
    text: str

    @classmethod
    def of(cls, told: Mapping[str, Any], started: float | None) -> "Timing":
        """From what the process told, and when it was started if this is its first answer."""
        events = [(moment, stage or "other") for moment, stage in told["events"]]
        if started is not None:
            events.insert(0, (started, "process"))
        usage = {stage: Usage(**used) for stage, used in told["usage"].items()}
        start = told["start"] if started is None else started
        return cls(**{**told, "start": start, "events": tuple(events), "usage": usage})

    def spans(self) -> dict[str, list[tuple[float, float]]]:
        """From when to when each stage was on the clock, without gaps from start to stop.

        After them, as stages too, `first_token` up to the first text, if there is one, and `total`.
        """
        moments = [(self.start, "other"), *self.events, (self.stop, "other")]
        found: dict[str, list[tuple[float, float]]] = {}
        for (begin, stage), (end, _) in pairwise(moments):
            found.setdefault(stage, []).append((begin, end))
        found["other"] = found.pop("other")
        if self.first is not None:
            found["first_token"] = [(self.start, self.first)]
        return found | {"total": [(self.start, self.stop)]}

    @property
    def total(self) -> float:
        """Wall time, seconds."""
        return self.stop - self.start

    def intervals(self) -> list[Interval]:
        """Times between tokens, each taken when the token was chosen."""
        chosen = [end for _, end in self.spans().get("sampling", [])]
        return [
            Interval(place, after - before, self.prompt_tokens + place)
            for place, (before, after) in enumerate(pairwise(chosen), start=1)
        ]

    def items(self, stage: str) -> tuple[int | None, str | None]:
        """How many of what a stage worked through."""
        counts = {"frame": self.frames, "voxel": self.voxels, "position": self.prompt_tokens, "token": self.new_tokens}
        unit = next((unit for unit, stages in UNITS.items() if stage in stages), None)
        if unit is None:
            return None, None
        # the first token comes of the prompt
        return counts[unit] - (stage == "decode"), unit


class Asker:
    """A process that answers, started at the first question; a context manager, which ends it."""

    def __init__(self, bundle: Bundle, options: Options, frames: int, new_tokens: int):
        self.bundle, self._options = bundle, options
        self._settings = {
            "bundle": str(bundle.path),
            "options": asdict(options),
            "frames": frames,
            "new_tokens": new_tokens,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Number of the process, while there is one."""
        return self._process.pid if self._process else None

    def ask(self, question: Question, *, again: bool = False) -> Timing:
        """The answer to a question, or to the other one about what was looked at last.

        Raises:
            StllmError: what the session raised, or the process died; it is started anew by the next question.
        """
        task = {"question": question.to_json(), "again": again}
        try:
            started = self._start(task)
            assert self._socket is not None
            channel = Channel(self._socket.fileno())
            if started is None:
                channel.send(task)
            told, _ = channel.receive()
        except (EOFError, OSError):
            raise StllmError(self._death()) from None
        except BaseException:
            self.close()
            raise
        if "error" in told:
            self.close()
            raise StllmError(told["error"])
        return Timing.of(told, started)

    def _start(self, task: Mapping[str, Any]) -> float | None:
        """Start the process where there is none, with a first task, which it finds there; when that was."""
        if self._process is not None:
            return None
        self._socket, theirs = socket.socketpair()
        with theirs:
            channel = Channel(self._socket.fileno())
            channel.send(self._settings)
            channel.send(task)
            started = time.perf_counter()
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno())],
                # its end lets the kernel kill the process, also by the end of this one
                stdin=subprocess.PIPE,
                stdout=sys.stderr.fileno() if has_descriptor(sys.stderr) else subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in a terminal reaches this process alone, which then decides
                start_new_session=True,
            )
        return started

    def _death(self) -> str:
        """Why the process gives no reply."""
        process = self._process
        try:
            status = process.wait(PATIENCE) if process else None
        except subprocess.TimeoutExpired:
            status = None
        self.close()
        if status == -signal.SIGKILL:
            return (
                "the process that answered was killed, most likely because memory ran out; "
                "fewer --frames, a smaller --quant or --no-resident need less"
            )
        return f"the process that answered ended with status {status}; its reason stands above"

    def close(self) -> None:
        """End the process, which frees all that it holds."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def has_descriptor(stream: Any) -> bool:
    try:
        os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return True
