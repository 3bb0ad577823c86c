"""The process of a `ChildEncoder`: one graph, requests on stdin, replies on stdout."""

import contextlib
import sys
from pathlib import Path

from .encoders import serve

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1", sys.stdin.buffer, sys.stdout.buffer)
