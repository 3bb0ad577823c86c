"""The process of a `ChildEncoder`: one graph or engine, requests on stdin, replies on stdout."""

import contextlib
import sys
from pathlib import Path

from .local import serve

if __name__ == "__main__":
    path, threads, literal, providers = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        serve(Path(path), int(threads), literal == "1", sys.stdin.buffer, sys.stdout.buffer, providers.split(","))
