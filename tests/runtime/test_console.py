"""What all commands share."""

import re
import subprocess
import sys

ALLOCATES = """
import mmap
from stllm_edge.runtime.console import peak_memory
from stllm_edge.runtime.memory.counters import Usage
from stllm_edge.runtime.memory.meter import Meter

def allocate(size):
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(size // 2**20):
        pages.write(bytes(2**20))
    pages.close()

meter = Meter(("vision",))
with peak_memory(quiet=False):
"""
MB = 10**6


def peak(work: str) -> int:
    """Megabytes that a new process prints after some work."""
    program = ALLOCATES + "\n".join(f"    {line}" for line in work.splitlines())
    # this process holds more than the new one, which must not count
    held = b"1" * 256 * MB
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    del held
    printed = re.fullmatch(r"peak memory (\d+) MB\n", done.stderr)
    assert printed, done.stderr
    return int(printed[1])


def test_the_peak_is_that_of_the_whole_command() -> None:
    """What was freed before a stage began, and the kernel's count started anew, counts too."""
    alone = peak("pass")
    work = "allocate(200 * 2**20)\nfor _ in range(3):\n    with meter.measure('vision'):\n        pass"
    assert alone + 200 <= peak(work) <= alone + 225
    assert alone < 100


def test_the_peak_counts_a_process_that_worked_for_this_one() -> None:
    assert peak("with meter.measure('vision'):\n    meter.note('vision', Usage(peak=5 * 10**9))") > 5000
