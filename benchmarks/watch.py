"""Run a command and report the most memory that it and its children held at once, by the kernel's counters.

    python -m stllm_edge.benchmarks.watch stllm-export gguf --ckpt DIR --out BUNDLE --quant F16
    python -m stllm_edge.benchmarks.watch --limit-mb 8000 stllm-run --bundle BUNDLE ...

Anonymous memory is what a process allocated; mapped memory is file pages, which the kernel can take back. Both are
sampled every 10 ms over the whole process tree. With `--limit-mb` the command runs in a control group that the kernel
does not let grow beyond it, page cache included; that takes the right to make one.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..runtime.memory.counters import CGROUPS, counters

__all__ = ["main", "watch"]

INTERVAL = 0.01


def main() -> None:
    """Run the command given as arguments; the figures go to stderr as one line of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--limit-mb", type=float, help="hard limit on memory, page cache included")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    with limited(arguments.limit_mb) as join:
        figures, status = watch(arguments.command, join)
    print(json.dumps(figures), file=sys.stderr)
    sys.exit(status)


def watch(command: list[str], join: Callable[[], None] | None = None) -> tuple[dict[str, float], int]:
    """Peaks in MB, seconds, and the command's exit status; `join` runs in the new process before the command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, preexec_fn=join)
    peaks = {"anonymous_mb": 0.0, "mapped_mb": 0.0, "total_mb": 0.0}
    while process.poll() is None:
        anonymous, mapped = (sum(column) for column in zip(*map(resident, tree(process.pid)), strict=True))
        # the total is taken at each sample: the two peaks need not come together
        for name, now in (("anonymous_mb", anonymous), ("mapped_mb", mapped), ("total_mb", anonymous + mapped)):
            peaks[name] = max(peaks[name], now / 1e6)
        time.sleep(INTERVAL)
    peaks["seconds"] = time.perf_counter() - start
    return {name: round(value, 1) for name, value in peaks.items()}, process.returncode


@contextmanager
def limited(megabytes: float | None) -> Iterator[Callable[[], None] | None]:
    """A control group with a memory limit; yields what moves a process into it."""
    if megabytes is None:
        yield None
        return
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    first = "memory" in own
    parent = CGROUPS / "memory" / own["memory"].lstrip("/") if first else CGROUPS / own[""].lstrip("/")
    group = parent / f"stllm-{os.getpid()}"
    group.mkdir()
    try:
        limit = "memory.limit_in_bytes" if first else "memory.max"
        (group / limit).write_text(str(int(megabytes * 1e6)))

        def join() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

        yield join
    finally:
        group.rmdir()


def tree(pid: int) -> list[int]:
    """A process and its descendants, whichever thread started them."""
    children: list[str] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += file.read_text().split()
    return [pid, *(below for child in children for below in tree(int(child)))]


def resident(pid: int) -> tuple[int, int]:
    """Anonymous and mapped resident bytes; zeros once the process is gone."""
    values = counters(pid)
    return values.get("RssAnon", 0), values.get("RssFile", 0) + values.get("RssShmem", 0)


if __name__ == "__main__":
    main()
