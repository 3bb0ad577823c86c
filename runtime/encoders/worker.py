"""The process of a `ChildEncoder`: it loads one graph or engine when it is told to, and answers until its channel ends.

What is imported here is waited for before each encoder's first result.
"""

import contextlib
import fcntl
import os
import sys
from pathlib import Path
from signal import SIGKILL

import numpy as np

from ..errors import StllmError
from .channel import Channel
from .encoder import Encoder, load, prepare

__all__ = ["main"]

STDIN = 0


def main() -> None:
    """Serve over the socket that the first argument names; the others are those of `ChildEncoder`."""
    descriptor, path, threads, literal, *providers = sys.argv[1:]
    end_with_parent()
    channel = Channel(int(descriptor))
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            prepare(Path(path))
            # until it is told to load, this process holds libraries alone
            channel.receive()
            encoder = load(Path(path), int(threads), literal == "1", providers)
            channel.send({"usage": encoder.usage.__dict__})
            serve(channel, encoder)
        except StllmError as error:
            channel.send({"error": type(error).__name__, "message": str(error)})


def serve(channel: Channel, encoder: Encoder) -> None:
    """Answer requests; raises EOFError when there are no more."""
    arrays: dict[str, np.ndarray] = {}
    while True:
        _, arrays = channel.receive(arrays)
        output = encoder(**arrays)
        channel.send({"usage": encoder.usage.__dict__}, {"output": output})
        del output  # before the next inputs come


def end_with_parent() -> None:
    """Let the kernel kill this process when the other end of standard input closes, as it does when the parent dies.

    The parent writes nothing there, so that its end is all that can happen. No Python runs for it, which a graph at
    work would delay; PR_SET_PDEATHSIG would fire when the thread that started the process ends, which may be earlier.
    """
    fcntl.fcntl(STDIN, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(STDIN, fcntl.F_SETSIG, SIGKILL)
    fcntl.fcntl(STDIN, fcntl.F_SETFL, fcntl.fcntl(STDIN, fcntl.F_GETFL) | os.O_ASYNC)
