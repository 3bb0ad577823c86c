"""An encoder in a process of its own, which gives all its memory back at the end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadBundle, BadInput, MissingDependency, StllmError
from ..memory.counters import Usage
from .channel import Channel
from .local import CPU_PROVIDER

__all__ = ["ChildEncoder"]

# Modules in the current folder must not shadow the installed ones: `-c` puts it first, as an empty name, and Python
# has an option that does not only from 3.11 on. `sys` is part of the interpreter, so nothing is looked up before.
PROGRAM = f"import sys; sys.path[:] = filter(None, sys.path); from {__package__}.worker import main; main()"
# numpy starts a thread a core as it is imported, for products that ONNX Runtime computes in threads of its own
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
ERRORS: dict[str, type[StllmError]] = {
    kind.__name__: kind for kind in (StllmError, BadBundle, BadInput, MissingDependency)
}
STDERR = 2
PIECE = 2**16
TAIL = 2**12
# from the end of a process's socket to its own, seconds: Python's finalisation and the return of gigabytes lie between
PATIENCE = 10.0


class ChildEncoder:
    """A graph or engine in a process that is started for it; a context manager, which ends the process.

    The process imports its libraries at once, and loads the graph when `load` or a call says so: one that is made early
    is ready when its inputs are, and takes memory for the graph no earlier than is wanted.
    Requests and replies travel over a socket of their own. What libraries print there goes to standard error.
    After an error the process is ended, and further calls are refused.
    """

    def __init__(self, path: Path, threads: int, literal: bool = False, providers: Sequence[str] = (CPU_PROVIDER,)):
        """Start the process and return; arguments as those of `LocalEncoder`, whose errors the first call raises.

        Raises:
            StllmError: no process can be started.
        """
        self._path = path
        self._usage = Usage()
        # why there are no more calls, in words
        self._over = ""
        self._told_to_load = False
        #: whether the graph is loaded, as far as this process has heard
        self.loaded = False
        # held during a call, by reentry also while a signal's handler closes in the midst of one
        self._turn = threading.RLock()
        self._socket, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), str(path), str(threads), str(int(literal)), *providers]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    # -u, for C too: what is printed must not wait in a buffer that a killed process does not write
                    [sys.executable, "-u", "-c", PROGRAM, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **ENVIRONMENT},
                    # Ctrl-C in a terminal reaches this process alone, which then decides
                    start_new_session=True,
                )
        except OSError as error:
            self._socket.close()
            raise StllmError(f"{path.name}: a process for it could not be started ({error})") from None
        self._channel = Channel(self._socket.fileno())
        # the process ends when this closes, also by the end of this process or of this object
        self._lifeline, self._process.stdin = self._process.stdin, None
        self._output = Output(self._process)

    def load(self) -> None:
        """Let the process load the graph meanwhile; `wait` or the first call raises what goes wrong."""
        with self._turn:
            if not self._over and not self._told_to_load:
                self._told_to_load = True
                # a process that failed early reads no more; its reply says why
                with contextlib.suppress(ConnectionError):
                    self._channel.send({})

    def __call__(self, **inputs: Any) -> np.ndarray:
        """Run the graph on arrays by name.

        Raises:
            BadBundle: the graph or engine could not be loaded.
            BadInput: an engine has no profile for the inputs.
            MissingDependency: a library that runs it is not installed or does not load.
            StllmError: the graph failed, the process died, or it is over after an earlier error or `close`.
        """
        with self._exchanging():
            self._require_loaded()
            return self._reply(inputs)["output"]

    def wait(self) -> None:
        """Load the graph, if `load` was not called before, and wait until that is done; raises as a call does."""
        with self._exchanging():
            self._require_loaded()

    @contextlib.contextmanager
    def _exchanging(self) -> Iterator[None]:
        """The turn to talk to the process, which is not used again after an error."""
        with self._turn:
            if self._over:
                raise StllmError(f"{self._path.name}: its process is not used again: {self._over}")
            try:
                yield
            except BaseException as error:
                # a reply that was not read to its end would be taken for the next one
                self._over = self._over or f"an earlier call failed ({str(error) or type(error).__name__})"
                self.close()
                raise

    def _require_loaded(self) -> None:
        if not self.loaded:
            self.load()
            self._reply()
            self.loaded = True

    def _reply(self, inputs: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """The arrays of the next reply, after a request where there are inputs."""
        try:
            if inputs is not None:
                # a process that failed reads no more; its reply says why
                with contextlib.suppress(ConnectionError):
                    self._channel.send({}, inputs)
            head, arrays = self._channel.receive()
        except (EOFError, OSError):
            raise self._death() from None
        if "error" in head:
            raise ERRORS[head["error"]](head["message"])
        self._usage = Usage(**head["usage"])
        return arrays

    def _death(self) -> StllmError:
        """Why the process gives no reply."""
        if self._over:
            return StllmError(f"{self._path.name}: closed while its graph ran")
        self._output.join(PATIENCE)
        return describe_end(self._path.name, self._process.returncode, self._output.last_line())

    @property
    def usage(self) -> Usage:
        """Memory of the process as of its last reply; zeros before.

        No page is shared with this process but those of files, so an array that was sent counts in the process that
        made it, for as long as the caller keeps it, and its copy in the other.
        """
        return self._usage

    def kill(self) -> None:
        """End the process at once, from any thread and without waiting; a call that is running raises StllmError."""
        self._over = self._over or "it was closed"
        self._process.kill()

    def close(self) -> None:
        """End the process at once, also while its graph runs, and do not wait for that.

        The kernel takes its memory back meanwhile; a thread waits for the process, so that it leaves no zombie.
        """
        self.kill()
        with self._turn:
            self._socket.close()
            if self._lifeline:
                self._lifeline.close()

    def __enter__(self) -> "ChildEncoder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Output(threading.Thread):
    """Passes what a process prints on to standard error, keeps the end of it, and waits for the end of the process."""

    def __init__(self, process: subprocess.Popen[bytes]):
        """Begin; the thread ends soon after the process, and does not keep this one alive."""
        super().__init__(name=f"output of {process.pid}", daemon=True)
        self._process = process
        self._tail = b""
        self.start()

    def run(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as printed:
            while piece := os.read(printed.fileno(), PIECE):
                self._tail = (self._tail + piece)[-TAIL:]
                # with nowhere to print to, the process must still not wait for a reader
                with contextlib.suppress(OSError):
                    while piece:
                        piece = piece[os.write(STDERR, piece) :]
        self._process.wait()

    def last_line(self) -> str:
        """The last line that is not empty, without control characters."""
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        return "".join(filter(str.isprintable, lines[-1])) if lines else ""


def describe_end(name: str, status: int | None, last_line: str) -> StllmError:
    """The error for a process that ended by itself.

    Args:
        name: of its graph.
        status: its exit status, or a signal's number negated; None if it has not ended.
        last_line: what it printed last.
    """
    said = f" ({last_line})" if last_line else ""
    if status is None:
        return StllmError(f"{name}: its process no longer answers{said}")
    if status >= 0:
        return StllmError(f"{name}: its process ended with status {status}{said}")
    if status == -signal.SIGKILL:
        return StllmError(
            f"{name}: its process was killed, most likely because memory ran out; fewer --frames need less"
        )
    by = next((known.name for known in signal.Signals if known == -status), f"signal {-status}")
    if status == -signal.SIGILL:
        return MissingDependency(f"{name}: its process was ended by {by}: a library is built for another CPU{said}")
    return StllmError(f"{name}: its process was ended by {by}{said}")
